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
    plan::{Objects, World},
    published::Published,
    resolve::Resolver,
    store::Store,
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
        let mut held = Held::default();
        let (mut swept, mut waits) = (unix_seconds(), None);
        loop {
            let missing = self.store.tables.lock().missing();
            if let Some(kind) = missing {
                if waits.replace(kind) != Some(kind) {
                    tracing::info!(kind, "waiting for the API server's objects");
                }
            } else {
                let began = Instant::now();
                held = self.plan(held).await;
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

    async fn plan(&self, mut held: Held) -> Held {
        let (objects, world, internal, learned) = {
            let tables = self.store.tables.lock();
            let learned: Vec<_> = tables.learned.values().map(Arc::clone).collect();
            (tables.objects(), tables.world(), tables.internal(), learned)
        };
        let learned = {
            let mut merged = self.links.merged.lock();
            merged.take(learned.iter());
            merged.plan()
        };
        let before = Arc::clone(&self.links.published.borrow());
        let made = spawn_blocking(move || {
            held.take(&objects, world);
            let plan = held.resolver.plan().clone();
            let learned = learned
                .into_iter()
                .map(|rule| before.learned_as(rule))
                .collect();
            (Published::new(before.revision + 1, &held.world, plan, learned, internal), held)
        });
        // A plan that panics is a defect: the one before stays in force.
        let Ok((now, held)) = made.await else {
            tracing::error!("no plan could be made; the one before stays in force");
            return Held::default();
        };
        self.say(&now);
        self.links.publish(now);
        self.links.news.notify_one();
        held
    }

    fn say(&self, now: &Published) {
        let size = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        let (rules, begun) = self.links.merged.lock().sizes();
        let counts = &self.links.counts;
        counts
            .revision
            .set(i64::try_from(now.revision).unwrap_or(i64::MAX));
        for (kind, len) in [
            ("pods", now.pods.len()),
            ("sets", now.plan.sets.len()),
            ("rules", now.plan.rules.len()),
            ("learned-rules", rules),
            ("learned-beginnings", begun),
        ] {
            counts.held.with(&[kind]).set(size(len));
        }
    }
}

/// What the resolver was told.
#[derive(Default)]
struct Held {
    resolver: Resolver,
    world: World,
    objects: Objects,
}

impl Held {
    /// Tells it what is different now.
    fn take(&mut self, objects: &Objects, world: World) {
        for (name, labels) in &world.namespaces {
            if self.world.namespaces.get(name) != Some(labels) {
                self.resolver.set_namespace(name, labels);
            }
        }
        for (uid, pod) in &world.pods {
            let known = self.world.pods.get(uid);
            if !known.is_some_and(|known| Arc::ptr_eq(known, pod)) {
                self.resolver.set_pod(pod);
            }
        }
        for uid in self
            .world
            .pods
            .keys()
            .filter(|uid| !world.pods.contains_key(*uid))
        {
            self.resolver.remove_pod(uid);
        }
        for name in self.world.namespaces.keys() {
            if !world.namespaces.contains_key(name) {
                self.resolver.remove_namespace(name);
            }
        }
        if !is_same(&self.objects, objects) {
            self.resolver.set_objects(objects);
            self.objects = objects.clone();
        }
        self.world = world;
    }
}

/// Whether what people wrote is the same; what became of it may not be.
fn is_same(known: &Objects, now: &Objects) -> bool {
    fn same<K: kube::Resource>(known: &[Arc<K>], now: &[Arc<K>]) -> bool {
        let alike = |known: &Arc<K>, now: &Arc<K>| {
            let (known, now) = (known.meta(), now.meta());
            known.uid == now.uid && known.generation == now.generation
        };
        known.len() == now.len() && known.iter().zip(now).all(|(known, now)| alike(known, now))
    }
    same(&known.groups, &now.groups)
        && same(&known.cluster_groups, &now.cluster_groups)
        && same(&known.rules, &now.rules)
        && same(&known.cluster_rules, &now.cluster_rules)
        && same(&known.modes, &now.modes)
        && same(&known.cluster_modes, &now.cluster_modes)
}
