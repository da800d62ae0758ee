//! A watcher: it is cut off at any moment and resumes from its token, at the same replica or another. What it is told adds
//! up: nothing comes that is there, nothing changes or goes that is not, and no revision is older than the one before, unless
//! it is told everything anew.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use convoy::{
    model::{Instance, InstanceKey, ReplicaId, Revision},
    registry::{
        Registry,
        watch::{Filter, Seen, Step, Token, Watch},
    },
};
use futures_util::FutureExt;
use rand::{RngExt, rngs::StdRng};

pub struct Watcher {
    filter: Filter,
    /// By whom it is told, and how.
    at: Option<(ReplicaId, Registry, Watch)>,
    token: Option<String>,
    /// Of the last change that it was told.
    revision: Revision,
    known: BTreeMap<InstanceKey, Arc<Instance>>,
}

impl Watcher {
    pub fn new(filter: Filter) -> Self {
        Self { filter, at: None, token: None, revision: Revision::default(), known: BTreeMap::new() }
    }

    pub fn at(&self) -> Option<ReplicaId> {
        self.at.as_ref().map(|(at, ..)| *at)
    }

    pub fn known(&self) -> impl Debug {
        &self.known
    }

    pub fn cut_off(&mut self) {
        self.at = None;
    }

    pub fn resume(&mut self, at: ReplicaId, registry: &Registry) {
        let watch = registry.watch(self.filter.clone(), self.token.as_deref()).expect("there are few");
        if self.token.is_none() {
            self.known.clear();
            self.revision = Revision::default();
        }
        self.at = Some((at, registry.clone(), watch));
    }

    /// Is told some of what there is to tell.
    pub fn read(&mut self, random: &mut StdRng) {
        let Some((_, registry, watch)) = &mut self.at else { return };
        for _ in 0..random.random_range(0..30) {
            match watch.next().now_or_never() {
                None => return,
                Some(None) => {
                    self.at = None;
                    return;
                }
                Some(Some((step, token))) => {
                    match &step {
                        Step::Reset => self.revision = Revision::default(),
                        _ if token == Token::Start => {}
                        _ => {
                            let revision = token.revision();
                            assert!(revision >= self.revision, "{revision} is told after {}", self.revision);
                            self.revision = revision;
                        }
                    }
                    let token = registry.token(token);
                    take(&mut self.known, step);
                    self.token = Some(token);
                }
            }
        }
    }

    /// It has been told of everything.
    pub fn check(&self) {
        let (_, registry, _) = self.at.as_ref().expect("it is told");
        let snapshot = registry.snapshot();
        let all = snapshot.services.values().flat_map(|service| service.instances.values());
        let there: BTreeMap<InstanceKey, Arc<Instance>> = all
            .filter(|instance| self.filter.matches(&instance.value))
            .map(|instance| (instance.value.key.clone(), instance.value.clone()))
            .collect();
        assert_eq!(self.known, there, "what was told is what is there");
    }
}

fn take(known: &mut BTreeMap<InstanceKey, Arc<Instance>>, step: Step) {
    match step {
        Step::Reset => known.clear(),
        Step::Present(instance) => {
            let key = instance.value.key.clone();
            assert!(known.insert(key.clone(), instance.value).is_none(), "{key} was told twice");
        }
        Step::Synced | Step::Bookmark => {}
        Step::Happened(told) => {
            let instance = told.entry.event.instance.value.clone();
            let key = instance.key.clone();
            let was_there = known.contains_key(&key);
            assert_eq!(was_there, told.seen != Seen::Added, "{key} is {:?}", told.seen);
            match told.seen.is_there() {
                true => known.insert(key, instance),
                false => known.remove(&key),
            };
        }
    }
}
