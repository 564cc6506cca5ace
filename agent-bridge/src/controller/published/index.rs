//! Names by what they are found by, in their order.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Arc};

/// Never an empty list.
pub(in crate::controller) type Index<K> = HashMap<K, Vec<Arc<str>>>;

/// Puts a name in, once.
pub(in crate::controller) fn enter<K: Eq + Hash>(all: &mut Index<K>, key: K, name: &Arc<str>) {
    let names = all.entry(key).or_default();
    if let Err(place) = names.binary_search(name) {
        names.insert(place, Arc::clone(name));
    }
}

/// Takes it out.
pub(in crate::controller) fn leave<K, Q>(all: &mut Index<K>, key: &Q, name: &Arc<str>)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    let Some(names) = all.get_mut(key) else { return };
    if let Ok(place) = names.binary_search(name) {
        names.remove(place);
    }
    if names.is_empty() {
        all.remove(key);
    }
}

/// Names there.
pub(in crate::controller) fn of<'a, K, Q>(
    all: &'a Index<K>,
    key: &Q,
) -> impl Iterator<Item = &'a Arc<str>> + use<'a, K, Q>
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    all.get(key).into_iter().flatten()
}
