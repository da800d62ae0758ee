//! Which instances have which label, capability, service or place: sets of small numbers, one for each value.
//!
//! The index is of one snapshot, whole. It is brought to a later one by comparing the two: what did not change is shared by
//! both and passed over, so that this costs what changed, and a step for each service. Nothing tells the
//! index of changes, and nobody waits for it: there is none until somebody asks.
//!
//! A name with too many different values (one for each instance, say) is given up: conditions on it find no help here.

use std::{collections::HashMap, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};
use roaring::RoaringBitmap;

use super::text::TextIndex;
use crate::{
    model::{
        Instance, InstanceId, ServiceKey,
        selector::{Term, Terms},
    },
    registry::{
        command::Versioned,
        state::{ServiceState, Snapshot},
    },
};

/// Different values of one name, and of all names. One takes some 200 bytes.
const MAX_VALUES: usize = 100_000;
const MAX_ALL_VALUES: usize = 500_000;

/// The instances that have a value.
type Values = HashMap<Box<str>, RoaringBitmap>;

/// The values of one name. None if there are too many.
#[derive(Debug)]
struct Family(Option<Values>);

impl Default for Family {
    fn default() -> Self {
        Self(Some(Values::new()))
    }
}

#[derive(Debug, Default)]
struct Families {
    namespaces: Family,
    services: Family,
    capabilities: Family,
    regions: Family,
    zones: Family,
    sub_zones: Family,
    labels: HashMap<Box<str>, Family>,
    /// Different values, and names of labels.
    size: usize,
    /// There are names of labels without a family.
    labels_left_out: bool,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Index {
    snapshot: Arc<Snapshot>,
    slots: Vec<Option<Versioned<Instance>>>,
    free: Vec<u32>,
    places: HashMap<ServiceKey, HashMap<InstanceId, u32>>,
    families: Families,
    /// Made when somebody first asks for words.
    text: Option<TextIndex>,
}

impl Index {
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Brings it to a snapshot, unless that is older.
    pub fn advance(&mut self, to: &Arc<Snapshot>) {
        if to.revision < self.snapshot.revision || Arc::ptr_eq(to, &self.snapshot) {
            return;
        }
        let from = std::mem::replace(&mut self.snapshot, to.clone());
        let none = &OrdMap::new();
        let (mut before, mut after) = (from.services.iter().peekable(), to.services.iter().peekable());
        // Both are in the order of their keys.
        loop {
            let order = match (before.peek(), after.peek()) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return,
            };
            let old: Option<(&ServiceKey, &Arc<ServiceState>)> = if order.is_le() { before.next() } else { None };
            let new: Option<(&ServiceKey, &Arc<ServiceState>)> = if order.is_ge() { after.next() } else { None };
            match (old, new) {
                (Some((_, old)), Some((_, new))) if Arc::ptr_eq(old, new) => {}
                (Some((key, old)), Some((_, new))) => self.compare(key, &old.instances, &new.instances),
                (Some((key, old)), None) => self.compare(key, &old.instances, none),
                (None, Some((key, new))) => self.compare(key, none, &new.instances),
                (None, None) => {}
            }
        }
    }

    fn compare(
        &mut self,
        service: &ServiceKey,
        before: &OrdMap<InstanceId, Versioned<Instance>>,
        after: &OrdMap<InstanceId, Versioned<Instance>>,
    ) {
        let mut places = self.places.remove(service).unwrap_or_default();
        for change in before.diff(after) {
            match change {
                DiffItem::Add(id, new) => {
                    let slot = self.free.pop().unwrap_or_else(|| {
                        self.slots.push(None);
                        // More than four billion do not fit into memory.
                        u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
                    });
                    places.insert(id.clone(), slot);
                    self.enter(slot, new);
                }
                DiffItem::Update { new: (id, new), .. } => self.change(places.get(id).copied(), new),
                DiffItem::Remove(id, _) => self.leave(places.remove(id)),
            }
        }
        if !places.is_empty() {
            self.places.insert(service.clone(), places);
        }
    }

    fn enter(&mut self, slot: u32, instance: &Versioned<Instance>) {
        each_value(&instance.value, |name, value| self.families.insert(name, value, slot));
        if let Some(text) = &mut self.text {
            text.insert(slot, &instance.value.spec);
        }
        self.slots[slot as usize] = Some(instance.clone());
    }

    fn leave(&mut self, slot: Option<u32>) {
        let Some(slot) = slot else { return };
        let Some(instance) = self.slots[slot as usize].take() else { return };
        each_value(&instance.value, |name, value| self.families.remove(name, value, slot));
        if let Some(text) = &mut self.text {
            text.remove(slot, &instance.value.spec);
        }
        self.free.push(slot);
    }

    fn change(&mut self, slot: Option<u32>, to: &Versioned<Instance>) {
        let Some(slot) = slot else { return };
        let place = &mut self.slots[slot as usize];
        let Some(before) = place.replace(to.clone()) else { return };
        // Most changes are of health or weight, and leave what the agent said as it is.
        if Arc::ptr_eq(&before.value.spec, &to.value.spec) {
            return;
        }
        each_value(&before.value, |name, value| self.families.remove(name, value, slot));
        each_value(&to.value, |name, value| self.families.insert(name, value, slot));
        if let Some(text) = &mut self.text {
            text.remove(slot, &before.value.spec);
            text.insert(slot, &to.value.spec);
        }
    }

    pub fn has_text(&self) -> bool {
        self.text.is_some()
    }

    pub fn text(&mut self) -> &TextIndex {
        if self.text.as_ref().is_some_and(TextIndex::is_worn) {
            self.text = None;
        }
        let slots = &self.slots;
        self.text.get_or_insert_with(|| {
            let mut text = TextIndex::default();
            for (slot, instance) in (0u32..).zip(slots) {
                if let Some(instance) = instance {
                    text.insert(slot, &instance.value.spec);
                }
            }
            text
        })
    }

    /// Those that could match, of all that have the equalities; none if no equality helps.
    pub fn candidates(&self, terms: &Terms, namespace: Option<&str>) -> Option<RoaringBitmap> {
        let mut found = Vec::new();
        if let Some(namespace) = namespace {
            found.extend(self.families.namespaces.have(namespace));
        }
        for alternatives in terms.iter() {
            let sets: Option<Vec<RoaringBitmap>> = alternatives.iter().map(|term| self.families.have(term)).collect();
            found.extend(sets.map(|sets| sets.into_iter().fold(RoaringBitmap::new(), |all, set| all | set)));
        }
        found.sort_by_key(RoaringBitmap::len);
        found.into_iter().reduce(|all, set| all & set)
    }

    pub fn at(&self, slot: u32) -> Option<&Versioned<Instance>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Family {
    /// The instances with the value; None if nothing is known of it.
    fn have(&self, value: &str) -> Option<RoaringBitmap> {
        Some(self.0.as_ref()?.get(value).cloned().unwrap_or_default())
    }
}

/// A name whose values are kept apart.
#[derive(Clone, Copy)]
enum Name<'a> {
    Namespace,
    Service,
    Capability,
    Region,
    Zone,
    SubZone,
    Label(&'a str),
}

fn each_value<'a>(instance: &'a Instance, mut look: impl FnMut(Name<'a>, &'a str)) {
    let (service, spec) = (&instance.key.service, &instance.spec);
    look(Name::Namespace, service.namespace.as_str());
    look(Name::Service, service.name.as_str());
    look(Name::Region, &spec.locality.region);
    look(Name::Zone, &spec.locality.zone);
    look(Name::SubZone, &spec.locality.sub_zone);
    spec.capabilities.iter().for_each(|capability| look(Name::Capability, &capability.name));
    spec.labels.iter().for_each(|(name, value)| look(Name::Label(name), value));
}

impl Families {
    fn of(&mut self, name: Name<'_>) -> Option<&mut Family> {
        Some(match name {
            Name::Namespace => &mut self.namespaces,
            Name::Service => &mut self.services,
            Name::Capability => &mut self.capabilities,
            Name::Region => &mut self.regions,
            Name::Zone => &mut self.zones,
            Name::SubZone => &mut self.sub_zones,
            Name::Label(name) => self.labels.get_mut(name)?,
        })
    }

    fn insert(&mut self, name: Name<'_>, value: &str, slot: u32) {
        if let Name::Label(label) = name
            && !self.labels.contains_key(label)
        {
            if self.size >= MAX_ALL_VALUES {
                self.labels_left_out = true;
                return;
            }
            self.size += 1;
            self.labels.insert(label.into(), Family::default());
        }
        let size = self.size;
        let Some(family) = self.of(name) else { return };
        let Some(values) = &mut family.0 else { return };
        if let Some(set) = values.get_mut(value) {
            set.insert(slot);
            return;
        }
        if values.len() < MAX_VALUES && size < MAX_ALL_VALUES {
            values.insert(value.into(), RoaringBitmap::from([slot]));
            self.size += 1;
        } else {
            let given_up = values.len();
            family.0 = None;
            self.size -= given_up;
        }
    }

    fn remove(&mut self, name: Name<'_>, value: &str, slot: u32) {
        let Some(Family(Some(values))) = self.of(name) else { return };
        let Some(set) = values.get_mut(value) else { return };
        set.remove(slot);
        if set.is_empty() {
            values.remove(value);
            self.size -= 1;
        }
    }

    fn have(&self, term: &Term) -> Option<RoaringBitmap> {
        match term {
            Term::Namespace(value) => self.namespaces.have(value),
            Term::Service(value) => self.services.have(value),
            Term::Capability(value) => self.capabilities.have(value),
            Term::Region(value) => self.regions.have(value),
            Term::Zone(value) => self.zones.have(value),
            Term::SubZone(value) => self.sub_zones.have(value),
            Term::Label(name, value) => match self.labels.get(&**name) {
                Some(family) => family.have(value),
                None => (!self.labels_left_out).then(RoaringBitmap::new),
            },
            // There are as many as instances.
            Term::Id(_) => None,
        }
    }
}
