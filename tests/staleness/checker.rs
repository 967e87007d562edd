//! Judges pages by the acknowledged writes.
//!
//! A fact is something that a page shows or does not show: that a task is in a list. Each write changes some
//! facts, and the writes of one fact come one after the other. A page may show the state after the last write
//! that must be visible to it, or after any later write that had begun when the page was received.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::{Duration, Instant},
};

/// Time within which a write must be visible if a server was unreachable or the writer was killed
/// (docs/reference.md, "The promise and its limits").
const REPAIR_TIME: Duration = Duration::from_secs(1);

/// Age at which a page is judged. By then the writers have reported the writes that it must show.
pub const JUDGEMENT_DELAY: Duration = Duration::from_millis(500);

/// Time after which the writes of a fact that is false are forgotten. Longer than any page waits to be
/// judged.
const RETENTION: Duration = Duration::from_secs(30);

/// A list, and the name of a task.
pub type Fact = (&'static str, String);

/// A fact, and whether it is true.
pub type Change = (Fact, bool);

/// One write of one fact.
#[derive(Clone, Copy, Debug)]
struct Write {
    number: u64,
    begun: Instant,
    /// Pages requested from this time on must show it, or a later write.
    visible_from: Option<Instant>,
    value: bool,
}

#[derive(Default)]
pub struct Checker(Mutex<Knowledge>);

#[derive(Default)]
struct Knowledge {
    facts: HashMap<Fact, Vec<Write>>,
    writes: u64,
    /// Number of current faults.
    faults: usize,
    /// Writes that ended during a fault. They must be visible [`REPAIR_TIME`] after it.
    deferred: Vec<u64>,
    strict_writes: u64,
}

/// The time after its end within which a write must become visible.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Grace {
    None,
    OneSecond,
    OneSecondAfterFault,
}

/// A page that a reader received.
#[derive(Debug)]
pub struct PageView {
    pub process: usize,
    pub requested: Instant,
    pub received: Instant,
    /// The lists whose tasks it shows.
    pub lists: &'static [&'static str],
    pub facts: HashSet<Fact>,
}

impl Checker {
    pub fn fault_begins(&self) {
        self.0.lock().unwrap().faults += 1;
    }

    pub fn fault_ends(&self) {
        let mut knowledge = self.0.lock().unwrap();
        knowledge.faults -= 1;
        if knowledge.faults == 0 {
            let from = Instant::now() + REPAIR_TIME;
            for number in std::mem::take(&mut knowledge.deferred) {
                knowledge.settle(number, from);
            }
        }
    }

    /// Records a write that begins. Returns its number.
    pub fn write_begins(&self, changes: &[Change]) -> u64 {
        let mut knowledge = self.0.lock().unwrap();
        knowledge.writes += 1;
        let number = knowledge.writes;
        for (fact, value) in changes {
            let write = Write { number, begun: Instant::now(), visible_from: None, value: *value };
            knowledge.facts.entry(fact.clone()).or_default().push(write);
        }
        number
    }

    /// Records the outcome of a write, from its reply or from the database if the process died.
    ///
    /// The write must be visible from `invalidated_at`. `None` means that its invalidation is not
    /// confirmed: then it has a second, from now or from the end of the current faults.
    pub fn write_ends(
        &self,
        number: u64,
        outcome: &[Change],
        invalidated_at: Option<Instant>,
    ) -> Grace {
        let mut knowledge = self.0.lock().unwrap();
        for (fact, value) in outcome {
            let writes = knowledge.facts.entry(fact.clone()).or_default();
            for write in writes.iter_mut().filter(|write| write.number == number) {
                write.value = *value;
            }
        }
        if let Some(from) = invalidated_at {
            knowledge.strict_writes += 1;
            knowledge.settle(number, from);
            Grace::None
        } else if knowledge.faults > 0 {
            knowledge.deferred.push(number);
            Grace::OneSecondAfterFault
        } else {
            knowledge.settle(number, Instant::now() + REPAIR_TIME);
            Grace::OneSecond
        }
    }

    /// Returns the number of writes, and of those with [`Grace::None`].
    pub fn writes(&self) -> (u64, u64) {
        let knowledge = self.0.lock().unwrap();
        (knowledge.writes, knowledge.strict_writes)
    }

    /// Returns why a page is stale, or `None` if it is not.
    pub fn staleness(&self, page: &PageView) -> Option<String> {
        let knowledge = self.0.lock().unwrap();
        let judged = knowledge.facts.iter().filter(|((list, _), _)| page.lists.contains(list));
        for (fact, writes) in judged {
            let shown = page.facts.contains(fact);
            if !is_allowed(writes, page, shown) {
                let what = if shown { "still there" } else { "missing" };
                return Some(format!("{} is {what} in {}", fact.1, fact.0));
            }
        }
        let unknown = page.facts.iter().find(|fact| !knowledge.facts.contains_key(*fact));
        unknown.map(|(list, name)| format!("{name} is still there in {list}, long after"))
    }
}

/// Returns whether a page may show this value of a fact.
fn is_allowed(writes: &[Write], page: &PageView, value: bool) -> bool {
    let must_be_seen =
        |write: &Write| write.visible_from.is_some_and(|from| from <= page.requested);
    let last = writes.iter().rposition(must_be_seen);
    // Before its first write, a fact is false.
    let before = last.is_some_and(|last| writes[last].value);
    let later = &writes[last.map_or(0, |last| last + 1)..];
    before == value
        || later.iter().any(|write| write.begun <= page.received && write.value == value)
}

impl Knowledge {
    /// Sets the time from which pages must show a write. Forgets facts that have been false for long.
    fn settle(&mut self, number: u64, from: Instant) {
        for writes in self.facts.values_mut() {
            for write in writes.iter_mut().filter(|write| write.number == number) {
                write.visible_from = Some(from);
            }
        }
        self.facts.retain(|_, writes| {
            let last = writes.last().copied();
            !last.is_some_and(|last| {
                !last.value && last.visible_from.is_some_and(|from| from.elapsed() > RETENTION)
            })
        });
    }
}
