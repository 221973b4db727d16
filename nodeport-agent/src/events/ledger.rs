//! When which Event is told: pure, with the time given.
//!
//! What comes up is told at once, if there is budget. What stays is told again before the API server
//! forgets it. What goes and comes back, or says something else, waits: objects may change many
//! times a second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::remark::{Key, Told};
use super::{Combined, Topic};

/// Events that one agent keeps up, at most. What is beyond is in the log and in `status`.
const MOST: usize = 1_000;
/// Events that are told at once.
const BURST: u32 = 25;
/// One more may be told in each such time: a thousand nodes that find the same wrong with a thousand
/// objects ask the API server two hundred times a second, and most of that is answered by "it is there".
const EACH: Duration = Duration::from_secs(5);
/// Before the API server forgets an Event, after an hour by default, it is told again.
const REFRESH: Duration = Duration::from_secs(50 * 60);
/// What was told is told again no sooner, if it says something else or comes back.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// What could not be told is tried again no sooner.
const PUT_OFF: Duration = Duration::from_secs(60);

/// All that is to be told, and what was.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<Topic, BTreeMap<Key, Entry>>,
    budget: Budget,
    left_out: u64,
}

#[derive(Debug)]
struct Entry {
    told: Told,
    /// It is wrong now; else it is only remembered.
    holds: bool,
    /// When it is to be told.
    due: Instant,
    /// What was told last, when, and how many times.
    last: Option<(Told, Instant, i32)>,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This is to be told.
    Tell(Box<Message>),
    /// Nothing before then, or before something changes.
    Wait(Option<Instant>),
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: Topic,
    pub(super) key: Key,
    pub(super) told: Told,
    /// How many times it was told before.
    pub(super) times: i32,
}

impl Ledger {
    /// Replaces what is wrong about a topic.
    pub(super) fn set(&mut self, topic: &Topic, now_wrong: Combined, now: Instant) {
        for (key, entry) in self.entries.get_mut(topic).into_iter().flatten() {
            entry.holds = now_wrong.contains_key(key);
        }
        for (key, told) in now_wrong {
            self.put(topic, key, told, now);
        }
    }

    fn len(&self) -> usize {
        self.entries.values().map(BTreeMap::len).sum()
    }

    fn entry(&mut self, topic: &Topic, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(topic)?.get_mut(key)
    }

    fn put(&mut self, topic: &Topic, key: Key, told: Told, now: Instant) {
        if let Some(entry) = self.entry(topic, &key) {
            entry.holds = true;
            if let Some((before, when, _)) = &entry.last {
                let again = if *before == told { REFRESH } else { PAUSE };
                entry.due = *when + again;
            }
            entry.told = told;
            return;
        }
        if self.len() >= MOST {
            self.forget(now, Duration::ZERO);
        }
        if self.len() >= MOST {
            self.left_out += 1;
            return;
        }
        let entry = Entry { told, holds: true, due: now, last: None };
        self.entries.entry(topic.clone()).or_default().insert(key, entry);
    }

    /// Forgets what is over and was told longer ago than that.
    fn forget(&mut self, now: Instant, age: Duration) {
        let counts = |entry: &Entry| {
            entry.holds || entry.last.as_ref().is_some_and(|(_, when, _)| *when + age > now)
        };
        self.entries.retain(|_, of_topic| {
            of_topic.retain(|_, entry| counts(entry));
            !of_topic.is_empty()
        });
    }

    /// What is to be done.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        self.forget(now, REFRESH);
        let all = self.entries.iter();
        let all = all.flat_map(|(topic, entries)| entries.iter().map(move |one| (topic, one)));
        let holding = all.filter(|(_, (_, entry))| entry.holds);
        let Some((topic, (key, entry))) = holding.min_by_key(|(_, (_, entry))| entry.due) else {
            return Step::Wait(None);
        };
        if entry.due > now {
            return Step::Wait(Some(entry.due));
        }
        if let Some(until) = self.budget.take(now) {
            return Step::Wait(Some(until));
        }
        let same = entry.last.as_ref().filter(|(before, ..)| *before == entry.told);
        Step::Tell(Box::new(Message {
            topic: topic.clone(),
            key: key.clone(),
            told: entry.told.clone(),
            times: same.map_or(0, |(_, _, times)| *times),
        }))
    }

    /// That was told, or refused for good: then it is tried again when it would be told again.
    pub(super) fn done(&mut self, message: &Message, now: Instant) {
        let Message { topic, key, told, times } = message;
        let Some(entry) = self.entry(topic, key) else { return };
        // It may say something else by now.
        entry.due = now + if entry.told == *told { REFRESH } else { PAUSE };
        entry.last = Some((told.clone(), now, times.saturating_add(1)));
    }

    /// That could not be told: others come first, and then it again.
    pub(super) fn put_off(&mut self, message: &Message, now: Instant) {
        if let Some(entry) = self.entry(&message.topic, &message.key) {
            entry.due = now + PUT_OFF;
        }
    }

    /// How many were left out since the last time this was asked.
    pub(super) fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

/// How many requests may be made.
#[derive(Debug, Default)]
struct Budget {
    spent: u32,
    /// Since when what was spent comes back.
    since: Option<Instant>,
}

impl Budget {
    /// Takes one; or says when there is one.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        let since = *self.since.get_or_insert(now);
        let back = (now.saturating_duration_since(since).as_secs() / EACH.as_secs()) as u32;
        let back_by = since + EACH * back;
        self.spent = self.spent.saturating_sub(back);
        let since = if self.spent == 0 { now } else { back_by };
        self.since = Some(since);
        if self.spent >= BURST {
            return Some(since + EACH);
        }
        self.spent += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::remark::{Regarding, Remark, combine};
    use crate::model::{Kind, Name};
    use crate::telemetry::Scope;

    const SECOND: Duration = Duration::from_secs(1);

    fn topic(name: &str) -> Topic {
        Topic::Findings(Scope::Service(Name::new("default", name)))
    }

    fn wrong(name: &str, problem: &str) -> Combined {
        let regarding =
            Regarding { kind: Kind::Service, name: Name::new("default", name), uid: "".into() };
        let problem = problem.to_owned();
        combine(vec![Remark { regarding, reason: "Odd", action: "Serve", problem }])
    }

    /// Tells all that is due; returns what, and how many times each was told before.
    fn tell_all(ledger: &mut Ledger, now: Instant) -> (Vec<(String, i32)>, Option<Instant>) {
        let mut said = Vec::new();
        loop {
            match ledger.next(now) {
                Step::Tell(message) => {
                    ledger.done(&message, now);
                    said.push((message.told.note.clone(), message.times));
                }
                Step::Wait(until) => return (said, until),
            }
        }
    }

    fn notes(said: Vec<(String, i32)>) -> Vec<String> {
        said.into_iter().map(|(note, _)| note).collect()
    }

    #[test]
    fn what_stays_is_told_once_and_refreshed_before_it_is_forgotten() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        ledger.set(&topic("web"), wrong("web", "a"), start);
        assert_eq!(tell_all(&mut ledger, start), (vec![("a".into(), 0)], Some(start + REFRESH)));
        for minute in 1..50 {
            let now = start + 60 * SECOND * minute;
            ledger.set(&topic("web"), wrong("web", "a"), now);
            assert_eq!(tell_all(&mut ledger, now).0, [], "each plan finds the same");
        }
        assert_eq!(tell_all(&mut ledger, start + REFRESH).0, [("a".to_owned(), 1)]);
    }

    #[test]
    fn what_is_over_is_not_told_any_more() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.set(&topic("web"), wrong("web", "a"), now);
        ledger.set(&topic("web"), Combined::new(), now);
        assert_eq!(tell_all(&mut ledger, now), (vec![], None), "over before it was told");
        assert!(ledger.entries.is_empty(), "what was never told need not be remembered");
    }

    #[test]
    fn what_comes_and_goes_all_the_time_is_told_seldom() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let mut told = 0;
        for second in 0..3_600 {
            let now = start + SECOND * second;
            let problem = if second % 2 == 0 { wrong("web", "a") } else { Combined::new() };
            ledger.set(&topic("web"), problem, now);
            told += tell_all(&mut ledger, now).0.len();
        }
        assert!(told <= 2, "{told} times in an hour");
    }

    #[test]
    fn what_says_something_else_each_second_is_told_each_five_minutes() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..600 {
            let now = start + SECOND * second;
            ledger.set(&topic("web"), wrong("web", &second.to_string()), now);
            told.extend(notes(tell_all(&mut ledger, now).0));
        }
        assert_eq!(told, ["0", "300"]);
    }

    #[test]
    fn topics_do_not_end_each_other() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for name in ["a", "b", "c"] {
            ledger.set(&topic(name), wrong(name, name), now);
        }
        ledger.set(&topic("b"), Combined::new(), now);
        assert_eq!(notes(tell_all(&mut ledger, now).0), ["a", "c"]);
    }

    #[test]
    fn many_at_once_are_told_slowly_and_the_rest_is_counted() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        for number in 0..3_000 {
            let name = format!("s{number:04}");
            ledger.set(&topic(&name), wrong(&name, &name), start);
        }
        assert_eq!(ledger.take_left_out(), 2_000);
        assert_eq!(ledger.take_left_out(), 0);
        let (mut now, mut told) = (start, 0);
        while now < start + Duration::from_secs(600) {
            let (said, until) = tell_all(&mut ledger, now);
            told += said.len();
            assert!(told as u64 <= u64::from(BURST) + (now - start).as_secs() / EACH.as_secs());
            now = until.expect("there is more");
        }
        assert!(told >= 25 + 118, "{told}: the budget is used");
    }

    #[test]
    fn a_full_ledger_gives_up_what_is_over_first() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for number in 0..MOST {
            let name = number.to_string();
            ledger.set(&topic(&name), wrong(&name, "a"), now);
        }
        ledger.set(&topic("7"), Combined::new(), now);
        ledger.set(&topic("new"), wrong("new", "b"), now);
        assert_eq!(ledger.take_left_out(), 0);
        assert_eq!(ledger.len(), MOST);
    }

    #[test]
    fn what_cannot_be_told_lets_others_go_first() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for name in ["a", "b"] {
            ledger.set(&topic(name), wrong(name, name), now);
        }
        let Step::Tell(first) = ledger.next(now) else { panic!("something is due") };
        ledger.put_off(&first, now);
        assert_eq!(notes(tell_all(&mut ledger, now).0), ["b"]);
        assert_eq!(notes(tell_all(&mut ledger, now + PUT_OFF).0), ["a"]);
    }
}
