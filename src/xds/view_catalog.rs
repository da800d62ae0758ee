//! The cache as one stream sees it, and that stream's place in the index.

use std::sync::Arc;

use super::{
    cache::Cache,
    full::Full,
    held::Base,
    index::{Group, Mailbox, Place, Subscriber},
    name_set::NameSet,
    protocol::{Catalog, Interest},
    resource::Resource,
    session::Session,
    shared_view::SharedView,
};
use crate::{
    model::{Node, ResourceType, Revision},
    translate::View,
};

/// From so many names on streams share their places in the index.
const SHARED: usize = 16;
/// So many names a stream of a group may follow by itself, before it looks for another group; or this part of its names,
/// since to move costs as much as there are names, and they may come one by one.
const OWN: usize = 8;
const OWN_PART: usize = 64;

/// By type.
type Places = [Option<Box<Place>>; ResourceType::ALL.len()];

#[derive(Debug)]
pub struct ViewCatalog {
    pub cache: Arc<Cache>,
    pub view: Arc<SharedView>,
    pub mailbox: Arc<Mailbox>,
    node: Arc<Node>,
    places: Places,
}

impl ViewCatalog {
    pub fn new(cache: Arc<Cache>, view: &View, node: Arc<Node>, stream: u64) -> Self {
        let mailbox = Arc::new(Mailbox::new(stream));
        // Before the selection is made: then no change of it is missed.
        cache.enter(&mailbox);
        let view = cache.views.share(view, cache.select(&node));
        Self { cache, view, mailbox, node, places: Default::default() }
    }

    /// Brings the index in line with what a client asks for. This goes before anything is looked up for it: then no
    /// change between the two is lost.
    pub fn follow(&mut self, interest: &Interest) {
        let Interest { kind, changed, names } = interest;
        let kind = *kind;
        let mut place = self.places[kind as usize].take().unwrap_or_default();
        if changed.wildcard_began {
            place.wildcard = Some(self.cache.join_wildcard(kind, &self.view, &self.mailbox));
        }
        if changed.wildcard_ended
            && let Some(group) = place.wildcard.take()
        {
            self.cache.leave(&group, &self.mailbox);
        }
        let added = if changed.all_new { names.len() } else { changed.added.len() };
        if added > 0 || !changed.removed.is_empty() {
            if names.len() < SHARED
                || (place.group.is_some() && place.own.len() + added <= OWN.max(names.len() / OWN_PART))
            {
                self.follow_alone(kind, &mut place, interest);
            } else {
                self.follow_together(kind, &mut place, names);
            }
        }
        self.places[kind as usize] = Some(place);
    }

    /// Few names, or a few beside those of a group: the stream is in the index by itself. What a group tells it that
    /// it does not ask for any more, the session leaves aside.
    fn follow_alone(&self, kind: ResourceType, place: &mut Place, Interest { changed, names, .. }: &Interest) {
        let subscriber = Subscriber::Stream(self.mailbox.clone());
        for name in changed.removed.iter().filter(|name| !names.contains(name)) {
            if place.own.remove(name) {
                self.cache.unsubscribe(&self.view.key(kind, name), &subscriber);
            }
        }
        let few = names.len() < SHARED;
        let all = if few && (changed.all_new || place.group.is_some()) { Some(names.iter()) } else { None };
        for name in all.into_iter().flatten().chain(&changed.added) {
            if place.own.insert(name.clone()) {
                self.cache.subscribe(&self.view.key(kind, name), subscriber.clone());
            }
        }
        if few && let Some(group) = place.group.take() {
            self.cache.leave(&group, &self.mailbox);
        }
    }

    fn follow_together(&self, kind: ResourceType, place: &mut Place, names: &Arc<NameSet>) {
        let joined = self.cache.join(kind, &self.view, names, &self.mailbox);
        let group = joined.unwrap_or_else(|| self.cache.found(kind, &self.view, names, &self.mailbox));
        let subscriber = Subscriber::Stream(self.mailbox.clone());
        for name in std::mem::take(&mut place.own) {
            self.cache.unsubscribe(&self.view.key(kind, &name), &subscriber);
        }
        let before = place.group.replace(group.clone());
        if let Some(before) = before.filter(|before| !Arc::ptr_eq(before, &group)) {
            self.cache.leave(&before, &self.mailbox);
        }
    }

    /// Some raw resources are for other proxies than before, since a revision. What may be another resource now is marked.
    pub fn reselect(&mut self, session: &mut Session, since: Revision) {
        let selection = self.cache.select(&self.node);
        let view = self.cache.views.share(&self.view.view, selection);
        if view.id == self.view.id {
            return;
        }
        let before = std::mem::replace(&mut self.view, view);
        let places = std::mem::take(&mut self.places);
        // It comes to its new places before it leaves the old ones: what it holds stays in being, and is told of.
        let interests: Vec<Interest> = session.interests().collect();
        for interest in &interests {
            self.follow(interest);
        }
        self.leave(places, &before);
        let names = before.selection.keys().chain(self.view.selection.keys());
        for (kind, name) in names.filter(|name| before.selection.get(name) != self.view.selection.get(name)) {
            session.mark_dirty(*kind, name.clone(), since);
        }
    }

    /// Takes the stream out of places that it had with a view, but for what it follows by itself now.
    fn leave(&self, places: Places, view: &SharedView) {
        let subscriber = Subscriber::Stream(self.mailbox.clone());
        for (kind, place) in ResourceType::ALL.into_iter().zip(places) {
            let Some(place) = place else { continue };
            let now = self.places[kind as usize].as_deref();
            for name in &place.own {
                let key = view.key(kind, name);
                let still = now.is_some_and(|now| now.own.contains(name)) && self.view.key(kind, name) == key;
                if !still {
                    self.cache.unsubscribe(&key, &subscriber);
                }
            }
            for group in place.group.iter().chain(&place.wildcard) {
                self.cache.leave(group, &self.mailbox);
            }
        }
    }
}

impl Drop for ViewCatalog {
    fn drop(&mut self) {
        let places = std::mem::take(&mut self.places);
        self.leave(places, &self.view);
        self.cache.exit(&self.mailbox);
    }
}

impl Catalog for ViewCatalog {
    fn get(&self, kind: ResourceType, name: &Arc<str>) -> Option<Arc<Resource>> {
        let key = self.view.key_at(kind, name, &self.node, || self.cache.registry().snapshot());
        self.cache.get(&key, &self.view)
    }

    fn wildcard(&self, kind: ResourceType) -> Vec<Arc<str>> {
        self.view.wildcard(kind, &self.cache.registry().snapshot())
    }

    fn in_wildcard(&self, kind: ResourceType, name: &str) -> bool {
        self.view.in_wildcard(kind, name, &self.cache.registry().snapshot())
    }

    fn shared_names(&self, kind: ResourceType, digest: u128) -> Option<Arc<NameSet>> {
        self.cache.sharing.names.get(kind, digest)
    }

    fn share_names(&self, kind: ResourceType, names: &mut Arc<NameSet>) {
        match self.shared_names(kind, names.digest()) {
            Some(same) => *names = same,
            None => self.cache.sharing.names.put(kind, names.digest(), names),
        }
    }

    fn shared_base(&self, kind: ResourceType, digest: u128) -> Option<Arc<Base>> {
        self.cache.sharing.bases.get(kind, digest)
    }

    fn share_base(&self, kind: ResourceType, base: &Arc<Base>) {
        self.cache.sharing.bases.put(kind, base.digest(), base);
    }

    fn full(&self, kind: ResourceType, names: Option<&Arc<NameSet>>) -> Arc<Full> {
        let place = self.places[kind as usize].as_deref();
        let make = || {
            // By the view and not by the node: it is for all of the group.
            let get = |name: &Arc<str>| self.cache.get(&self.view.key(kind, name), &self.view);
            match names {
                Some(names) => Full::of(names.iter().cloned(), get),
                None => Full::of(self.wildcard(kind).into_iter(), get),
            }
        };
        let group = place.and_then(|place| match names {
            None => place.wildcard.as_ref(),
            Some(names) => {
                let of_group =
                    |group: &&Arc<Group>| group.names.as_ref().is_some_and(|of| of.digest() == names.digest());
                place.group.as_ref().filter(of_group)
            }
        });
        group.map_or_else(|| Arc::new(make()), |group| group.full(make))
    }
}
