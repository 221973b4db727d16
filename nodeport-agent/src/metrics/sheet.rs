//! Writes metrics of the catalogue as OpenMetrics text.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _,
    LabelSetEncoder, LabelValueEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

use super::catalog::{Kind, Metric};

/// What a scrape is written on.
pub(super) struct Sheet<'a>(pub(super) DescriptorEncoder<'a>);

/// A value: most are whole numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Sheet<'_> {
    /// A metric without labels.
    pub(super) fn one(&mut self, metric: &Metric, value: impl Into<Value>) -> fmt::Result {
        self.rows::<0, &str, _>(metric, [([], value.into())])
    }

    /// A metric's series: the values of its labels, and its own. Without series it is left out.
    pub(super) fn rows<const N: usize, L, V>(
        &mut self,
        metric: &Metric,
        rows: impl IntoIterator<Item = ([L; N], V)>,
    ) -> fmt::Result
    where
        L: AsRef<str>,
        V: Into<Value>,
    {
        debug_assert_eq!(metric.labels.len(), N, "{}", metric.name);
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        // The encoder puts the end behind a counter's name. An info is a gauge whose value is 1: then its
        // name may end as it likes.
        let (name, kind) = match metric.kind {
            Kind::Counter => {
                (metric.name.strip_suffix("_total").unwrap_or(metric.name), MetricType::Counter)
            }
            _ => (metric.name, MetricType::Gauge),
        };
        let mut encoder = self.0.encode_descriptor(name, metric.help, None, kind)?;
        for (labels, value) in rows {
            let labels = Labels { names: metric.labels, values: &labels };
            match N {
                0 => put(&mut encoder, metric.kind, value.into())?,
                _ => put(&mut encoder.encode_family(&labels)?, metric.kind, value.into())?,
            }
        }
        Ok(())
    }

    pub(super) fn histogram(&mut self, metric: &Metric, histogram: &Histogram) -> fmt::Result {
        let kind = MetricType::Histogram;
        let encoder = self.0.encode_descriptor(metric.name, metric.help, None, kind)?;
        histogram.encode(encoder)
    }
}

fn put(encoder: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        }
        (Kind::Counter, Value::Real(value)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
        }
        (_, Value::Whole(value)) => encoder.encode_gauge(&value),
        (_, Value::Real(value)) => encoder.encode_gauge(&value),
    }
}

/// The labels of a series.
struct Labels<'a, L> {
    names: &'static [&'static str],
    values: &'a [L],
}

impl<L: AsRef<str>> EncodeLabelSet for Labels<'_, L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.names.iter().zip(self.values) {
            (*name, Escaped(value.as_ref())).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// A label's value, which may be any text: the encoder itself writes it as it is.
struct Escaped<'a>(&'a str);

impl EncodeLabelValue for Escaped<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            let (plain, special) = rest.split_at(at);
            encoder.write_str(plain)?;
            encoder.write_str(match special.as_bytes()[0] {
                b'\n' => "\\n",
                b'"' => "\\\"",
                _ => "\\\\",
            })?;
            rest = &special[1..];
        }
        encoder.write_str(rest)
    }
}
