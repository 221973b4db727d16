//! What tests plan by.

use super::{Held, Settings};
use crate::config::SourceRanges;

pub(crate) fn settings() -> Settings {
    Settings {
        node_name: "n1".into(),
        source_ranges: SourceRanges::LoadBalancer,
        held: Held::default(),
    }
}
