//! The system: its state, the steps that can be taken, and what each does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use stateright::{Model, Property};

/// A rule that can be switched off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    /// What was computed is stored only if the lease is untouched.
    Lease,
    /// A lease is worth nothing on another connection.
    LeaseEndsWithConnection,
    /// The page's lease is taken before the query is read.
    LeaseBeforeReading,
    /// A write leaves a row until its deletes have been confirmed.
    Ledger,
    /// The query is deleted before the page.
    InnerFirst,
    /// A fragment serves only the data that it was rendered from.
    Fingerprint,
    /// A joiner takes what was begun, or stored, after it had joined.
    Joiner,
}

/// How much of everything there is.
#[derive(Clone, Debug, Default)]
pub(crate) struct System {
    pub(crate) writers: usize,
    /// Each asks once.
    pub(crate) readers: usize,
    /// Whether the readers share computations.
    pub(crate) one_process: bool,
    /// Whether pages are made of a fragment, which no write deletes.
    pub(crate) fragments: bool,
    pub(crate) drainers: usize,
    /// So many things go wrong, in all.
    pub(crate) faults: u8,
    pub(crate) without: Option<Rule>,
    /// How often each kind of step has been taken.
    pub(crate) taken: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

const QUERY: usize = 0;
const PAGE: usize = 1;
const FRAGMENT: usize = 2;

/// A version of the database: how many writes it has seen.
type Version = u8;

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Content {
    Nothing,
    Lease,
    Value(Version),
}

/// A key's entry on the server, and the number of its last change.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Slot {
    content: Content,
    cas: u8,
}

/// A lease as its holder knows it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Held {
    cas: u8,
    connection: u8,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Reader {
    Idle,
    GetPage {
        alone: bool,
    },
    /// It leads, in its process.
    LeasePage {
        alone: bool,
    },
    GetQuery {
        page: Option<Held>,
    },
    LeaseQuery {
        page: Option<Held>,
    },
    ReadDatabase {
        page: Option<Held>,
        query: Option<Held>,
    },
    StoreQuery {
        page: Option<Held>,
        query: Option<Held>,
        version: Version,
    },
    GetFragment {
        page: Option<Held>,
        version: Version,
    },
    StoreFragment {
        page: Option<Held>,
        version: Version,
    },
    /// With [`Rule::LeaseBeforeReading`] switched off.
    LeasePageLate {
        version: Version,
    },
    Close {
        page: Option<Held>,
        version: Version,
    },
    StorePage {
        page: Option<Held>,
        version: Version,
    },
    Joined {
        early: bool,
    },
    Gone,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Writer {
    Idle,
    /// So many of its two deletes have been sent, and whether all were confirmed.
    Deleting {
        version: Version,
        sent: u8,
        confirmed: bool,
    },
    Gone,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Drainer {
    Idle,
    Deleting { version: Version, sent: u8, confirmed: bool },
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct State {
    database: Version,
    slots: [Slot; 3],
    next_cas: u8,
    connection: u8,
    readers: Vec<Reader>,
    /// What a reader must see at least.
    required: Vec<Version>,
    /// Who computes the page in the one process, whether that has begun, and its result.
    flight: Option<(usize, bool)>,
    writers: Vec<Writer>,
    drainers: Vec<Drainer>,
    /// Versions of writes whose invalidation has not been confirmed.
    ledger: Vec<Version>,
    /// The last write whose invalidation has been confirmed.
    confirmed: Version,
    faults: u8,
    stale: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Delete {
    Confirmed,
    Failed,
    /// Done, but nobody is told.
    Unconfirmed,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Read(usize),
    /// A reader that finds another's lease does not wait any longer.
    GiveUpWaiting(usize),
    Write(usize, Delete),
    Drain(usize, Delete),
    Restart,
    Evict(usize),
    Expire(usize),
    KillReader(usize),
    KillWriter(usize),
    KillDrainer(usize),
}

impl Model for System {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let empty = Slot { content: Content::Nothing, cas: 0 };
        vec![State {
            database: 0,
            slots: [empty; 3],
            next_cas: 1,
            connection: 0,
            readers: vec![Reader::Idle; self.readers],
            required: vec![0; self.readers],
            flight: None,
            writers: vec![Writer::Idle; self.writers],
            drainers: vec![Drainer::Idle; self.drainers],
            ledger: Vec::new(),
            confirmed: 0,
            faults: self.faults,
            stale: false,
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let outcomes: &[Delete] = match state.faults {
            0 => &[Delete::Confirmed],
            _ => &[Delete::Confirmed, Delete::Failed, Delete::Unconfirmed],
        };
        for (n, reader) in state.readers.iter().enumerate() {
            match reader {
                Reader::Gone | Reader::Joined { .. } => {}
                Reader::GetPage { .. } => steps.extend([Step::Read(n), Step::GiveUpWaiting(n)]),
                _ => steps.push(Step::Read(n)),
            }
        }
        for (n, writer) in state.writers.iter().enumerate() {
            match writer {
                Writer::Gone => {}
                Writer::Deleting { sent: 0 | 1, .. } => {
                    steps.extend(outcomes.iter().map(|outcome| Step::Write(n, *outcome)));
                }
                _ => steps.push(Step::Write(n, Delete::Confirmed)),
            }
        }
        for (n, drainer) in state.drainers.iter().enumerate() {
            match drainer {
                Drainer::Idle if state.ledger.is_empty() => {}
                Drainer::Deleting { sent: 0 | 1, .. } => {
                    steps.extend(outcomes.iter().map(|outcome| Step::Drain(n, *outcome)));
                }
                _ => steps.push(Step::Drain(n, Delete::Confirmed)),
            }
        }
        if state.faults > 0 {
            self.faults(state, steps);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        let kind = match step {
            Step::Read(n) => self.read(&mut next, n, true)?,
            Step::GiveUpWaiting(n) => self.read(&mut next, n, false)?,
            Step::Write(n, outcome) => self.write(&mut next, n, outcome),
            Step::Drain(n, outcome) => drain(&mut next, n, outcome),
            fault => go_wrong(&mut next, fault),
        };
        *self.taken.lock().unwrap().entry(kind).or_insert(0) += 1;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("fresh", |_, state: &State| !state.stale)]
    }
}

impl System {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn faults(&self, state: &State, steps: &mut Vec<Step>) {
        steps.push(Step::Restart);
        for (n, slot) in state.slots.iter().enumerate() {
            match slot.content {
                Content::Nothing => {}
                Content::Lease => steps.extend([Step::Evict(n), Step::Expire(n)]),
                Content::Value(_) => steps.push(Step::Evict(n)),
            }
        }
        let alive = |reader: &Reader| !matches!(reader, Reader::Idle | Reader::Gone);
        let readers = (0..self.readers).filter(|n| alive(&state.readers[*n]));
        steps.extend(readers.map(Step::KillReader));
        let writing = |writer: &Writer| matches!(writer, Writer::Deleting { .. });
        let writers = (0..self.writers).filter(|n| writing(&state.writers[*n]));
        steps.extend(writers.map(Step::KillWriter));
        let draining = |drainer: &Drainer| *drainer != Drainer::Idle;
        let drainers = (0..self.drainers).filter(|n| draining(&state.drainers[*n]));
        steps.extend(drainers.map(Step::KillDrainer));
    }

    /// One step of a reader; `None` if it can only wait.
    fn read(&self, state: &mut State, n: usize, patient: bool) -> Option<&'static str> {
        let (reader, kind) = match state.readers[n] {
            Reader::Idle => {
                state.required[n] = state.confirmed;
                (Reader::GetPage { alone: false }, "ask")
            }
            Reader::GetPage { alone } => (self.get_page(state, n, alone, patient)?, "get page"),
            Reader::LeasePage { alone } => {
                let page = self.has(Rule::LeaseBeforeReading).then(|| state.lease(PAGE)).flatten();
                if let (false, Some((_, begun))) = (alone, &mut state.flight) {
                    *begun = true;
                }
                (Reader::GetQuery { page }, "lease page")
            }
            Reader::GetQuery { page } => (self.get_query(state, page, patient), "get query"),
            Reader::LeaseQuery { page } => {
                (Reader::ReadDatabase { page, query: state.lease(QUERY) }, "lease query")
            }
            Reader::ReadDatabase { page, query } => {
                (Reader::StoreQuery { page, query, version: state.database }, "read database")
            }
            Reader::StoreQuery { page, query, version } => {
                self.store(state, QUERY, query, version);
                (self.after_query(page, version), "store query")
            }
            Reader::GetFragment { page, version } => {
                (self.get_fragment(state, page, version), "get fragment")
            }
            Reader::StoreFragment { page, version } => {
                state.change(FRAGMENT, Content::Value(version));
                (self.before_page(page, version), "store fragment")
            }
            Reader::LeasePageLate { version } => {
                (Reader::Close { page: state.lease(PAGE), version }, "lease page")
            }
            Reader::Close { page, version } => (Reader::StorePage { page, version }, "close"),
            Reader::StorePage { page, version } => {
                let stored = self.store(state, PAGE, page, version);
                self.land(state, n, version, stored);
                state.serve(n, version);
                (Reader::Gone, "store page")
            }
            Reader::Joined { .. } | Reader::Gone => return None,
        };
        state.readers[n] = reader;
        Some(kind)
    }

    fn get_page(&self, state: &mut State, n: usize, alone: bool, patient: bool) -> Option<Reader> {
        match state.slots[PAGE].content {
            Content::Value(version) => {
                state.serve(n, version);
                return Some(Reader::Gone);
            }
            Content::Lease if patient && !self.one_process => return None,
            Content::Lease | Content::Nothing => {}
        }
        if alone || !self.one_process {
            return Some(Reader::LeasePage { alone: true });
        }
        let is_open = |leader: usize| !matches!(state.readers[leader], Reader::StorePage { .. });
        match state.flight {
            Some((leader, begun)) if is_open(leader) => {
                self.note("join");
                Some(Reader::Joined { early: !begun })
            }
            _ => {
                state.flight = Some((n, false));
                Some(Reader::LeasePage { alone: false })
            }
        }
    }

    fn get_query(&self, state: &State, page: Option<Held>, patient: bool) -> Reader {
        match state.slots[QUERY].content {
            Content::Value(version) => self.after_query(page, version),
            // Another's lease: it is waited for at most so long, then computed and not stored.
            Content::Lease if patient => Reader::ReadDatabase { page, query: None },
            Content::Lease | Content::Nothing => Reader::LeaseQuery { page },
        }
    }

    fn after_query(&self, page: Option<Held>, version: Version) -> Reader {
        if self.fragments {
            Reader::GetFragment { page, version }
        } else {
            self.before_page(page, version)
        }
    }

    /// The page shows what the fragment does.
    fn get_fragment(&self, state: &State, page: Option<Held>, version: Version) -> Reader {
        match state.slots[FRAGMENT].content {
            Content::Value(found) if found == version || !self.has(Rule::Fingerprint) => {
                self.before_page(page, found)
            }
            _ => Reader::StoreFragment { page, version },
        }
    }

    fn before_page(&self, page: Option<Held>, version: Version) -> Reader {
        if self.has(Rule::LeaseBeforeReading) {
            Reader::Close { page, version }
        } else {
            Reader::LeasePageLate { version }
        }
    }

    /// Whether it was stored.
    fn store(&self, state: &mut State, key: usize, held: Option<Held>, version: Version) -> bool {
        let slot = state.slots[key];
        let same_connection = |held: Held| {
            held.connection == state.connection || !self.has(Rule::LeaseEndsWithConnection)
        };
        let allowed = match held {
            _ if !self.has(Rule::Lease) => true,
            Some(held) => {
                held.cas == slot.cas && slot.content != Content::Nothing && same_connection(held)
            }
            None => false,
        };
        if allowed {
            state.change(key, Content::Value(version));
        }
        allowed
    }

    /// Those who have joined a reader take its result, or go on by themselves.
    fn land(&self, state: &mut State, leader: usize, version: Version, stored: bool) {
        if state.flight.is_none_or(|(n, _)| n != leader) {
            return;
        }
        state.flight = None;
        for n in 0..state.readers.len() {
            let Reader::Joined { early } = state.readers[n] else { continue };
            if stored || early || !self.has(Rule::Joiner) {
                self.note("take");
                state.serve(n, version);
                state.readers[n] = Reader::Gone;
            } else {
                state.readers[n] = Reader::GetPage { alone: true };
            }
        }
    }

    fn write(&self, state: &mut State, n: usize, outcome: Delete) -> &'static str {
        let (writer, kind) = match state.writers[n] {
            Writer::Idle => {
                state.database += 1;
                let version = state.database;
                if self.has(Rule::Ledger) {
                    state.ledger.push(version);
                }
                (Writer::Deleting { version, sent: 0, confirmed: true }, "commit")
            }
            Writer::Deleting { version, sent: 2, confirmed } => {
                if confirmed {
                    state.confirm(version);
                } else if !self.has(Rule::Ledger) {
                    // Answered, and nobody remembers that a delete is missing.
                    state.confirmed = state.confirmed.max(version);
                }
                (Writer::Gone, "answer")
            }
            Writer::Deleting { version, sent, confirmed } => {
                let inner_first = self.has(Rule::InnerFirst);
                let key = if inner_first == (sent == 0) { QUERY } else { PAGE };
                let (done, kind) = state.delete(key, outcome);
                let confirmed = confirmed && done;
                (Writer::Deleting { version, sent: sent + 1, confirmed }, kind)
            }
            Writer::Gone => (Writer::Gone, "nothing"),
        };
        state.writers[n] = writer;
        kind
    }

    fn note(&self, kind: &'static str) {
        *self.taken.lock().unwrap().entry(kind).or_insert(0) += 1;
    }
}

fn drain(state: &mut State, n: usize, outcome: Delete) -> &'static str {
    let (drainer, kind) = match state.drainers[n] {
        Drainer::Idle => {
            let version = state.ledger[0];
            (Drainer::Deleting { version, sent: 0, confirmed: true }, "drain")
        }
        Drainer::Deleting { version, sent: 2, confirmed } => {
            if confirmed {
                state.confirm(version);
            }
            (Drainer::Idle, "drained")
        }
        Drainer::Deleting { version, sent, confirmed } => {
            let key = if sent == 0 { QUERY } else { PAGE };
            let (done, kind) = state.delete(key, outcome);
            (Drainer::Deleting { version, sent: sent + 1, confirmed: confirmed && done }, kind)
        }
    };
    state.drainers[n] = drainer;
    kind
}

fn go_wrong(state: &mut State, fault: Step) -> &'static str {
    state.faults -= 1;
    match fault {
        Step::Restart => {
            let empty = Slot { content: Content::Nothing, cas: 0 };
            (state.slots, state.next_cas) = ([empty; 3], 1);
            state.connection += 1;
            "server restarts"
        }
        Step::Evict(key) => {
            state.change(key, Content::Nothing);
            "entry is evicted"
        }
        Step::Expire(key) => {
            state.change(key, Content::Nothing);
            "lease expires"
        }
        Step::KillReader(n) => {
            state.readers[n] = Reader::Gone;
            if state.flight.is_some_and(|(leader, _)| leader == n) {
                state.flight = None;
                for reader in &mut state.readers {
                    if matches!(reader, Reader::Joined { .. }) {
                        *reader = Reader::GetPage { alone: false };
                    }
                }
            }
            "reader is killed"
        }
        Step::KillWriter(n) => {
            state.writers[n] = Writer::Gone;
            "writer is killed"
        }
        Step::KillDrainer(n) => {
            state.drainers[n] = Drainer::Idle;
            "drainer is killed"
        }
        Step::Read(_) | Step::GiveUpWaiting(_) | Step::Write(..) | Step::Drain(..) => "nothing",
    }
}

impl State {
    fn change(&mut self, key: usize, content: Content) {
        self.slots[key] = Slot { content, cas: self.next_cas };
        self.next_cas += 1;
    }

    /// Reserves a key, if there is nothing.
    fn lease(&mut self, key: usize) -> Option<Held> {
        if self.slots[key].content != Content::Nothing {
            return None;
        }
        self.change(key, Content::Lease);
        Some(Held { cas: self.slots[key].cas, connection: self.connection })
    }

    /// Whether the writer knows that it is done.
    fn delete(&mut self, key: usize, outcome: Delete) -> (bool, &'static str) {
        if outcome != Delete::Failed {
            self.change(key, Content::Nothing);
        }
        if outcome != Delete::Confirmed {
            self.faults -= 1;
        }
        let kind = match (outcome, key) {
            (Delete::Failed, _) => "delete fails",
            (Delete::Unconfirmed, _) => "delete is confirmed to nobody",
            (Delete::Confirmed, QUERY) => "delete query",
            (Delete::Confirmed, _) => "delete page",
        };
        (outcome == Delete::Confirmed, kind)
    }

    fn confirm(&mut self, version: Version) {
        self.ledger.retain(|row| *row != version);
        self.confirmed = self.confirmed.max(version);
    }

    fn serve(&mut self, reader: usize, version: Version) {
        self.stale |= version < self.required[reader];
    }
}
