//! The metric library behind types of our own, so that no other room names it.

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    TextEncoder,
};

/// A family could not be registered or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    /// The name is taken, or not a metric name.
    #[error("metric family {name} cannot be registered")]
    Register {
        /// The family.
        name: String,
        /// What the library says.
        #[source]
        source: prometheus::Error,
    },
    /// The exposition failed.
    #[error("metrics cannot be written as text")]
    Expose(#[source] prometheus::Error),
    /// The exposition is not UTF-8.
    #[error("metrics are not text")]
    NotText(#[source] std::string::FromUtf8Error),
}

/// A set of metric families; one a process, handed down, never global.
#[derive(Clone, Debug, Default)]
pub struct Registry(prometheus::Registry);

/// A counter: it only grows.
#[derive(Clone, Debug)]
pub struct Counter(IntCounter);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `count`.
    pub fn inc_by(&self, count: u64) {
        self.0.inc_by(count);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A gauge: it goes up and down.
#[derive(Clone, Debug)]
pub struct Gauge(IntGauge);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.set(value);
    }

    /// Adds to it.
    pub fn add(&self, value: i64) {
        self.0.add(value);
    }

    /// Takes from it.
    pub fn sub(&self, value: i64) {
        self.0.sub(value);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// Durations, counted by how long they were.
#[derive(Clone, Debug)]
pub struct Durations(Histogram);

impl Durations {
    /// Adds one.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took.as_secs_f64());
    }
}

/// Counters by label values.
#[derive(Clone, Debug)]
pub struct CounterFamily(IntCounterVec);

impl CounterFamily {
    /// The counter with these label values, in the order of the family's labels; their number must be that of the labels.
    #[must_use]
    pub fn with(&self, values: &[&str]) -> Counter {
        Counter(self.0.with_label_values(values))
    }
}

/// Gauges by label values.
#[derive(Clone, Debug)]
pub struct GaugeFamily(IntGaugeVec);

impl GaugeFamily {
    /// The gauge with these label values, in the order of the family's labels; their number must be that of the labels.
    #[must_use]
    pub fn with(&self, values: &[&str]) -> Gauge {
        Gauge(self.0.with_label_values(values))
    }
}

impl Registry {
    fn add<T: prometheus::core::Collector + Clone + 'static>(
        &self,
        name: &str,
        made: Result<T, prometheus::Error>,
    ) -> Result<T, MetricError> {
        let refuse = |source| MetricError::Register { name: name.to_owned(), source };
        let metric = made.map_err(refuse)?;
        self.0.register(Box::new(metric.clone())).map_err(refuse)?;
        Ok(metric)
    }

    /// Registers a counter.
    ///
    /// # Errors
    /// When the name is taken or malformed; so for all of them.
    pub fn counter(&self, name: &str, help: &str) -> Result<Counter, MetricError> {
        self.add(name, IntCounter::new(name, help)).map(Counter)
    }

    /// Registers a gauge.
    ///
    /// # Errors
    /// When the name is taken or malformed.
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge, MetricError> {
        self.add(name, IntGauge::new(name, help)).map(Gauge)
    }

    /// Registers a histogram of seconds, with these upper bounds of its buckets, in order.
    ///
    /// # Errors
    /// When the name is taken or malformed.
    pub fn durations(
        &self,
        name: &str,
        help: &str,
        bounds: &[f64],
    ) -> Result<Durations, MetricError> {
        let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        self.add(name, Histogram::with_opts(options)).map(Durations)
    }

    /// Registers a family of counters; each label's values must come from a closed set.
    ///
    /// # Errors
    /// When the name is taken or malformed.
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<CounterFamily, MetricError> {
        self.add(name, IntCounterVec::new(Opts::new(name, help), labels))
            .map(CounterFamily)
    }

    /// Registers a family of gauges; each label's values must come from a closed set.
    ///
    /// # Errors
    /// When the name is taken or malformed.
    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeFamily, MetricError> {
        self.add(name, IntGaugeVec::new(Opts::new(name, help), labels))
            .map(GaugeFamily)
    }

    /// All families in the text format.
    ///
    /// # Errors
    /// When a family cannot be written.
    pub fn expose(&self) -> Result<String, MetricError> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.0.gather(), &mut text)
            .map_err(MetricError::Expose)?;
        String::from_utf8(text).map_err(MetricError::NotText)
    }
}
