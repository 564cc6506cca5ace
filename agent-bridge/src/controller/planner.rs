//! Makes a plan of what the API server has, whenever it changed, and puts it in force.

use std::{sync::Arc, time::Duration};

use outrider_telemetry::unix_seconds;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    links::Links,
    plan::Pod,
    published::Change,
    resolve::Resolver,
    store::{Changed, News, Store},
};
use crate::cluster::lease::{Standing, leading};

/// From a change to a plan at least, so that what comes together is planned together. After a plan that took long it
/// is as long as that took: half of one core at most goes into plans.
const PACE: Duration = Duration::from_millis(20);
/// Between two times that old beginnings of rules are looked for.
const SWEEP: u64 = 600;

/// Plans while we lead.
pub(super) struct Planner {
    pub(super) store: Arc<Store>,
    pub(super) links: Arc<Links>,
    pub(super) ready: watch::Sender<bool>,
}

impl Planner {
    /// Goes on for ever.
    pub(super) async fn run(self, mut standing: watch::Receiver<Standing>) {
        while leading(&mut standing).await {
            self.links.begin();
            tokio::select! {
                biased;
                _ = standing.wait_for(|now| matches!(now, Standing::Following(_))) => {}
                () = self.lead() => {}
            }
            self.ready.send_replace(false);
            self.links.counts.leading.set(0);
            self.links.cut_all();
        }
    }

    async fn lead(&self) {
        self.links.counts.leading.set(1);
        let mut resolver = None;
        let (mut swept, mut waits) = (unix_seconds(), None);
        loop {
            let missing = self.store.tables.lock().missing();
            if let Some(kind) = missing {
                if waits.replace(kind) != Some(kind) {
                    tracing::info!(kind, "waiting for the API server's objects");
                }
            } else {
                let began = Instant::now();
                resolver = self.plan(resolver).await;
                self.links.counts.plan_seconds.observe(began.elapsed());
                self.ready.send_replace(true);
                sleep(began.elapsed().max(PACE)).await;
            }
            tokio::select! {
                biased;
                () = self.store.changed.notified() => {}
                () = self.links.learned.notified() => {}
            }
            // What is about to follow is planned with it.
            sleep(PACE).await;
            let now = unix_seconds();
            if now >= swept + SWEEP {
                swept = now;
                self.links.merged.lock().sweep(now);
            }
        }
    }

    /// Brings what is in force in line with what there is; without a resolver, from the beginning.
    async fn plan(&self, resolver: Option<Resolver>) -> Option<Resolver> {
        let (store, links) = (Arc::clone(&self.store), Arc::clone(&self.links));
        let made = spawn_blocking(move || {
            let changed = store.tables.lock().news(resolver.is_none());
            let mut resolver = resolver.filter(|_| !changed.whole).unwrap_or_default();
            let whole = changed.whole;
            let mut change = take(changed, &mut resolver, &links);
            change.plan = resolver.step();
            links.publish(whole, change, resolver.made());
            resolver
        });
        // A plan that panics is a defect: the one before stays in force.
        let Ok(resolver) = made.await else {
            tracing::error!("no plan could be made; the one before stays in force");
            return None;
        };
        self.say();
        self.links.news.notify_one();
        Some(resolver)
    }

    fn say(&self) {
        let size = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        let (rules, begun) = self.links.merged.lock().sizes();
        let (counts, now) = (&self.links.counts, self.links.published.read());
        counts
            .revision
            .set(i64::try_from(now.revision).unwrap_or(i64::MAX));
        for (kind, len) in [
            ("pods", now.pods.len()),
            ("services", now.fronts.served.len()),
            ("sets", now.plan.sets.len()),
            ("rules", now.plan.rules.len()),
            ("learned-rules", rules),
            ("learned-beginnings", begun),
        ] {
            counts.held.with(&[kind]).set(size(len));
        }
    }
}

/// Tells the resolver what is different now.
fn take(changed: Changed, resolver: &mut Resolver, links: &Links) -> Change {
    let services = each(changed.services).map(|(_, before, now)| (before, now));
    let slices = each(changed.slices).map(|(_, before, now)| (before, now));
    let mut change = Change {
        internal: changed.internal,
        services: services.collect(),
        slices: slices.collect(),
        ..Change::default()
    };
    for (before, now) in changed.objects {
        match (before, now) {
            (_, Some(now)) => resolver.set_object(now),
            (Some(before), None) => resolver.remove_object(&before.key()),
            (None, None) => {}
        }
    }
    for ((_, name), before, now) in each(changed.namespaces) {
        match (before, now) {
            (_, Some(now)) => resolver.set_namespace(&name, &now),
            (Some(_), None) => resolver.remove_namespace(&name),
            (None, None) => {}
        }
    }
    let mut fresh: Vec<Arc<Pod>> = Vec::new();
    for (_, before, now) in each(changed.pods) {
        if let Some(before) = before {
            change.pods.insert(Arc::clone(&before.uid), None);
        }
        fresh.extend(now);
    }
    // One that has another's name now has a uid of its own.
    for pod in fresh {
        change.pods.insert(Arc::clone(&pod.uid), Some(pod));
    }
    for (uid, pod) in &change.pods {
        match pod {
            Some(pod) => resolver.set_pod(pod),
            None => resolver.remove_pod(uid),
        }
    }
    let mut merged = links.merged.lock();
    match changed.learned {
        News::All(all) => merged.take(all.iter().map(|(_, object)| object)),
        News::Some(some) => {
            for (key, _, now) in some {
                match now {
                    Some(object) => merged.take_one(&object),
                    None => merged.forget(&key),
                }
            }
        }
    }
    change.learned = merged.changed(changed.whole);
    change
}

/// One by one, as it was and as it is.
fn each<V>(news: News<V>) -> impl Iterator<Item = (super::store::Key, Option<V>, Option<V>)> {
    let (all, some) = match news {
        News::All(all) => (all, Vec::new()),
        News::Some(some) => (Vec::new(), some),
    };
    all.into_iter()
        .map(|(key, now)| (key, None, Some(now)))
        .chain(some)
}
