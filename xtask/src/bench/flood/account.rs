//! Where each SYN went: the books must balance.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

/// Reasons for which a SYN to a frontend does not open a flow.
const REFUSALS: [&str; 8] = [
    "no_backend",
    "martian_source",
    "hop_unresolved",
    "no_port",
    "table_full",
    "draining",
    "failed",
    "raced",
];

/// What a node has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Flows opened.
    pub opened: u64,
    /// Packets by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Packets that the links to it have dropped.
    pub lost_on_links: u64,
}

impl Counts {
    /// From what `services` and `status` print.
    pub(super) fn read(services: &Value, status: &Value) -> Result<Self> {
        let mut opened = BTreeMap::new();
        for row in services.as_array().context("services: no list")? {
            // A service port has a row for each family, with one count for both.
            opened.insert(number(row, "id")?, number(row, "flows_opened")?);
        }
        let counters = status["counters"].as_array().context("status: no counters")?;
        let reason = |counter: &Value| {
            let name = counter["reason"].as_str().context("status: a counter without reason")?;
            Ok((name.to_owned(), number(counter, "packets")?))
        };
        let reasons = counters.iter().map(reason).collect::<Result<_>>()?;
        Ok(Self { opened: opened.values().sum(), reasons, lost_on_links: 0 })
    }

    /// Packets that a link has dropped, from what `ip -s -j link show` prints.
    pub(super) fn lost(link: &Value) -> Result<u64> {
        let stats = &link[0]["stats64"];
        Ok(number(&stats["rx"], "dropped")? + number(&stats["tx"], "dropped")?)
    }

    /// What was counted since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let old = |name: &String| before.reasons.get(name).copied().unwrap_or_default();
        let reasons = self.reasons.iter().map(|(name, count)| (name.clone(), count - old(name)));
        Self {
            opened: self.opened - before.opened,
            reasons: reasons.collect(),
            lost_on_links: self.lost_on_links - before.lost_on_links,
        }
    }

    /// The count of one reason.
    #[must_use]
    pub fn of(&self, reason: &str) -> u64 {
        self.reasons.get(reason).copied().unwrap_or_default()
    }

    /// SYNs that opened nothing.
    #[must_use]
    pub fn refused(&self) -> u64 {
        REFUSALS.iter().map(|reason| self.of(reason)).sum()
    }

    /// Holds `sent` SYNs of a flood, and at most `others` of somebody else, against what was
    /// counted meanwhile: each opened a flow, was refused for a reason, or was lost on a link.
    ///
    /// # Errors
    /// If some are not accounted for, or more than there can be.
    pub fn balance(&self, sent: u64, others: u64) -> Result<()> {
        let met = self.opened + self.refused();
        ensure!(
            met + self.lost_on_links >= sent,
            "{sent} SYNs were sent, {} opened a flow, {} were refused, links lost {}: {} are \
             not accounted for",
            self.opened,
            self.refused(),
            self.lost_on_links,
            sent - met - self.lost_on_links
        );
        ensure!(
            met <= sent + others,
            "{} flows opened and {} SYNs refused, of {sent} and at most {others} others",
            self.opened,
            self.refused()
        );
        Ok(())
    }
}

fn number(value: &Value, field: &str) -> Result<u64> {
    value[field].as_u64().with_context(|| format!("no number {field} in {value}"))
}

/// Holds the connections of a client against the node's flows: each has one, which has proved
/// itself, has both halves, and is as old as `seconds` at least: it was never opened anew.
///
/// # Errors
/// If a connection has none such.
pub fn all_followed(flows: &Value, clients: &[SocketAddr], seconds: f64) -> Result<()> {
    let mut missing: BTreeSet<SocketAddr> = clients.iter().copied().collect();
    for flow in flows.as_array().context("flows: no list")? {
        let client: SocketAddr = flow["client"].as_str().unwrap_or_default().parse()?;
        if !missing.remove(&client) {
            continue;
        }
        let age = flow["age_seconds"].as_f64().unwrap_or_default();
        if flow["standing"] != "established" || flow["to_client"].is_null() || age < seconds {
            bail!("the flow of {client} was not kept as it was ({seconds} s ago): {flow}");
        }
    }
    let some: Vec<_> = missing.iter().take(3).collect();
    ensure!(missing.is_empty(), "{} connections have no flow any more: {some:?} …", missing.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(opened: u64, reason: &str, packets: u64, lost_on_links: u64) -> Counts {
        let reasons = BTreeMap::from([(reason.to_owned(), packets)]);
        Counts { opened, reasons, lost_on_links }
    }

    #[test]
    fn a_port_with_two_families_is_counted_once() {
        let row = |family| json!({"id": 3, "family": family, "flows_opened": 7});
        let status = json!({"counters": [{"reason": "no_port", "packets": 2}]});
        let read = Counts::read(&json!([row(4), row(6)]), &status).unwrap();
        assert_eq!(read, counts(7, "no_port", 2, 0));
        assert!(Counts::read(&json!({}), &status).is_err());
        assert!(Counts::read(&json!([{"id": 3}]), &status).is_err());
    }

    #[test]
    fn books_balance_or_say_what_is_missing() {
        let before = counts(5, "no_port", 1, 1);
        let now = counts(65, "no_port", 31, 11).since(&before);
        assert_eq!(now, counts(60, "no_port", 30, 10));
        assert!(now.balance(100, 0).is_ok() && now.balance(90, 0).is_ok());
        assert!(now.balance(85, 5).is_ok());
        assert!(now.balance(101, 9).unwrap_err().to_string().contains(": 1 are not"));
        assert!(now.balance(85, 4).is_err());
        // An answered packet is no SYN.
        assert!(counts(60, "ttl_exceeded", 30, 0).balance(90, 0).is_err());
    }

    #[test]
    fn a_flow_that_is_gone_lame_or_new_is_told() {
        let client: SocketAddr = "10.0.0.1:5".parse().unwrap();
        let flow = |standing, to_client: Value, age| {
            json!([{"client": "10.0.0.1:5", "standing": standing, "to_client": to_client,
                "age_seconds": age}])
        };
        assert!(all_followed(&flow("established", json!({}), 9.0), &[client], 8.0).is_ok());
        assert!(all_followed(&flow("newcomer", json!({}), 9.0), &[client], 8.0).is_err());
        assert!(all_followed(&flow("established", Value::Null, 9.0), &[client], 8.0).is_err());
        assert!(all_followed(&flow("established", json!({}), 7.0), &[client], 8.0).is_err());
        assert!(all_followed(&json!([]), &[client], 8.0).is_err());
    }
}
