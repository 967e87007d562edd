//! The modelled system: its state, its possible steps, and the effect of each step.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use stateright::{Model, Property};

/// A rule that can be switched off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    /// A computed value is stored only if the lease under its key is unchanged.
    Lease,
    /// A lease is valid only for the connection on which it was taken.
    LeaseEndsWithConnection,
    /// The lease of the page is taken before the query is read.
    LeaseBeforeReading,
    /// A write adds a row to the ledger, which stays until both deletes have been confirmed.
    Ledger,
    /// The query is deleted before the page.
    InnerFirst,
    /// A cached fragment is used only for the version of the data that it was rendered from.
    Fingerprint,
    /// A joiner accepts a result only if the computation began, or the result was stored, after it
    /// had joined.
    Joiner,
    /// The generation of the page's group is read before the data, and stored with the page.
    GenerationFirst,
    /// Computations are shared only among readers of the same generation.
    SameGeneration,
    /// A value at hand is used only after its entry has been read.
    Confirmation,
    /// A value at hand, and its bytes in the cache, are used only if the entry names them by their digest.
    Digest,
    /// A query that is found when it was to be reserved ahead of the page's lease is read again after that.
    ReadAgain,
}

/// What the page is, beyond a value that is made of a query.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Page {
    #[default]
    Plain,
    /// It contains a fragment. No write deletes the fragment's key.
    WithFragment,
    /// It belongs to a group, which writes forget instead of the page's key.
    Grouped,
    /// Processes keep the query's value at hand. The query's entry then names the value. Its bytes are in
    /// an entry of their own.
    OfValueAtHand,
}

/// The server of the cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Server {
    /// memcached: empty after a restart, and numbers its changes from the beginning.
    #[default]
    Memcached,
    /// Redis without persistence: empty after a restart. Tokens are random, so they are never used again.
    Redis,
    /// Redis with persistence: after a restart, it has the entries of its last snapshot.
    PersistentRedis,
}

/// The size of a system, and its rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct System {
    pub(crate) writers: usize,
    /// The number of readers. Each requests the page once.
    pub(crate) readers: usize,
    /// Whether all readers are in one process, where they share computations. Otherwise each is in
    /// a process of its own.
    pub(crate) one_process: bool,
    /// Whether the query may be reserved ahead: in one round trip with the page, of which either can come first.
    pub(crate) ahead: bool,
    pub(crate) page: Page,
    pub(crate) server: Server,
    pub(crate) drainers: usize,
    /// The largest number of faults on one path of the search.
    pub(crate) faults: u8,
    /// The rule that is switched off.
    pub(crate) without: Option<Rule>,
    /// The number of times that the search has taken each kind of step.
    pub(crate) taken: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

// The keys, as indices of `State::slots`.
const QUERY: usize = 0;
const PAGE: usize = 1;
const FRAGMENT: usize = 2;
const GROUP: usize = 3;

/// A generation of the group. None is used twice.
type Generation = u8;

/// A version of the database: the number of writes that have been committed. A value has the
/// version that it was computed from.
type Version = u8;

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Content {
    Empty,
    Lease,
    Value(Version),
    /// The generation of the group, under the group's key.
    Generation(Generation),
    /// A page of a group.
    Page {
        version: Version,
        generation: Generation,
    },
}

/// A key on the server: its content, and the CAS token of its last change.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Slot {
    content: Content,
    cas: u8,
}

/// A lease as its holder knows it: the key's CAS token, and the number of the connection on which
/// it was taken.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct HeldLease {
    cas: u8,
    connection: u8,
}

/// The next step of a reader. `page` and `query` are the leases that it holds; `version` is the
/// version of the data that it has read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Reader {
    Idle,
    GetGroup,
    /// With `alone` it does not share its computation with other readers.
    GetPage {
        alone: bool,
    },
    /// Without `alone` it leads the shared computation.
    LeasePage {
        alone: bool,
    },
    /// It has asked for the query already, and holds its lease, or has found the value `found`.
    LeasePageAfterQuery {
        alone: bool,
        query: Option<HeldLease>,
        found: Option<Version>,
    },
    GetQuery {
        page: Option<HeldLease>,
    },
    LeaseQuery {
        page: Option<HeldLease>,
    },
    /// The query's entry, with this CAS token, names a value that the process does not have at hand.
    GetBytes {
        page: Option<HeldLease>,
        cas: u8,
        version: Version,
    },
    /// The bytes are missing: the reader takes a lease in place of the entry with this CAS token.
    ReplaceQuery {
        page: Option<HeldLease>,
        cas: u8,
    },
    ReadDatabase {
        page: Option<HeldLease>,
        query: Option<HeldLease>,
    },
    StoreQuery {
        page: Option<HeldLease>,
        query: Option<HeldLease>,
        version: Version,
    },
    GetFragment {
        page: Option<HeldLease>,
        version: Version,
    },
    StoreFragment {
        page: Option<HeldLease>,
        version: Version,
    },
    /// It takes the lease of the page only now, after reading: with
    /// [`Rule::LeaseBeforeReading`] switched off.
    LeasePageLate {
        version: Version,
    },
    /// After this step no reader can join.
    CloseFlight {
        page: Option<HeldLease>,
        version: Version,
    },
    StorePage {
        page: Option<HeldLease>,
        version: Version,
    },
    /// It waits for the leader's result. `early`: it joined before the computation began. Otherwise it has
    /// a place in the next computation, which `next` leads if it is under way.
    Joined {
        leader: usize,
        early: bool,
        next: Option<usize>,
    },
    Finished,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Writer {
    Idle,
    /// `sent` of the two deletes have been sent, and `confirmed` is whether all of these were
    /// confirmed.
    Deleting {
        version: Version,
        sent: u8,
        confirmed: bool,
    },
    Finished,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Drainer {
    Idle,
    /// It repeats the deletes of the write `version`. The other fields are as for a writer.
    Deleting {
        version: Version,
        sent: u8,
        confirmed: bool,
    },
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct State {
    database: Version,
    slots: [Slot; 4],
    next_cas: u8,
    /// The last snapshot of the server.
    snapshot: Option<[Slot; 4]>,
    /// The number of the current connection, which changes when the server restarts.
    connection: u8,
    readers: Vec<Reader>,
    /// For each reader, the oldest version that it may get: `confirmed` when it began.
    required: Vec<Version>,
    /// For each reader, the generation of the group that it has read.
    generations: Vec<Generation>,
    /// For each process, the values of the query that it keeps at hand, the latest last.
    kept: Vec<Vec<Version>>,
    /// The values with bytes on their way to the server.
    sent: Vec<Version>,
    /// The values with bytes on the server.
    bytes: Vec<Version>,
    next_generation: Generation,
    /// The reader that leads the shared computation of the page, and whether the computation has
    /// begun.
    flight: Option<(usize, bool)>,
    writers: Vec<Writer>,
    drainers: Vec<Drainer>,
    /// The versions of the writes without a confirmed invalidation.
    ledger: Vec<Version>,
    /// The latest version with a confirmed invalidation.
    confirmed: Version,
    /// The number of faults that may still occur.
    faults: u8,
    /// Whether a reader has got an older version than it may.
    stale: bool,
}

/// The outcome of a delete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Delete {
    Confirmed,
    /// The key is not deleted, and the sender gets no confirmation.
    Failed,
    /// The key is deleted, but the sender gets no confirmation.
    Unconfirmed,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Read(usize),
    /// A reader that finds the lease of another reader stops waiting.
    GiveUpWaiting(usize),
    /// A reader reserves the query ahead of the page.
    ReserveAhead(usize),
    /// The server stores the first of the bytes that are on their way.
    StoreBytes,
    Write(usize, Delete),
    Drain(usize, Delete),
    Restart,
    /// The server takes a snapshot, once.
    Save,
    Evict(usize),
    EvictBytes,
    Expire(usize),
    KillReader(usize),
    KillWriter(usize),
    KillDrainer(usize),
}

impl Model for System {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let empty = Slot { content: Content::Empty, cas: 0 };
        vec![State {
            database: 0,
            slots: [empty; 4],
            next_cas: 1,
            snapshot: None,
            connection: 0,
            readers: vec![Reader::Idle; self.readers],
            required: vec![0; self.readers],
            generations: vec![0; self.readers],
            kept: vec![Vec::new(); self.readers],
            sent: Vec::new(),
            bytes: Vec::new(),
            next_generation: 1,
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
                Reader::Finished | Reader::Joined { .. } => {}
                Reader::GetPage { .. } => steps.extend([Step::Read(n), Step::GiveUpWaiting(n)]),
                Reader::LeasePage { .. } if self.ahead => {
                    steps.extend([Step::Read(n), Step::ReserveAhead(n)]);
                }
                _ => steps.push(Step::Read(n)),
            }
        }
        for (n, writer) in state.writers.iter().enumerate() {
            match writer {
                Writer::Finished => {}
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
        if !state.sent.is_empty() {
            steps.push(Step::StoreBytes);
        }
        if self.server == Server::PersistentRedis && state.snapshot.is_none() {
            steps.push(Step::Save);
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
            Step::ReserveAhead(n) => next.reserve_ahead(n)?,
            Step::StoreBytes => next.store_bytes(),
            Step::Write(n, outcome) => self.write(&mut next, n, outcome),
            Step::Drain(n, outcome) => self.drain(&mut next, n, outcome),
            Step::Save => next.save(),
            fault => apply_fault(&mut next, fault, self.server),
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

    fn is(&self, page: Page) -> bool {
        self.page == page
    }

    /// Adds all faults that can occur in a state, except those of deletes.
    fn faults(&self, state: &State, steps: &mut Vec<Step>) {
        steps.push(Step::Restart);
        if !state.bytes.is_empty() {
            steps.push(Step::EvictBytes);
        }
        for (n, slot) in state.slots.iter().enumerate() {
            match slot.content {
                Content::Empty => {}
                Content::Lease => steps.extend([Step::Evict(n), Step::Expire(n)]),
                _ => steps.push(Step::Evict(n)),
            }
        }
        let alive = |reader: &Reader| !matches!(reader, Reader::Idle | Reader::Finished);
        let readers = (0..self.readers).filter(|n| alive(&state.readers[*n]));
        steps.extend(readers.map(Step::KillReader));
        let writing = |writer: &Writer| matches!(writer, Writer::Deleting { .. });
        let writers = (0..self.writers).filter(|n| writing(&state.writers[*n]));
        steps.extend(writers.map(Step::KillWriter));
        let draining = |drainer: &Drainer| *drainer != Drainer::Idle;
        let drainers = (0..self.drainers).filter(|n| draining(&state.drainers[*n]));
        steps.extend(drainers.map(Step::KillDrainer));
    }

    /// Takes the next step of a reader and returns its kind, or `None` if the reader must wait.
    fn read(&self, state: &mut State, n: usize, may_wait: bool) -> Option<&'static str> {
        let (reader, kind) = match state.readers[n] {
            Reader::Idle => {
                // From now on, older versions are stale for this reader.
                state.required[n] = state.confirmed;
                let next = if self.is(Page::Grouped) {
                    Reader::GetGroup
                } else {
                    Reader::GetPage { alone: false }
                };
                (next, "ask")
            }
            Reader::GetGroup => {
                state.generations[n] = state.generation();
                (Reader::GetPage { alone: false }, "get group")
            }
            Reader::GetPage { alone } => (self.get_page(state, n, alone, may_wait)?, "get page"),
            Reader::LeasePage { alone } => {
                (Reader::GetQuery { page: self.lease_page(state, n, alone) }, "lease page")
            }
            Reader::LeasePageAfterQuery { alone, query, found } => {
                let page = self.lease_page(state, n, alone);
                (self.after_both(state, page, query, found), "lease page after query")
            }
            Reader::GetQuery { page } => (self.get_query(state, n, page, may_wait), "get query"),
            Reader::GetBytes { page, cas, version } => {
                (self.get_bytes(state, n, page, cas, version), "get bytes")
            }
            Reader::ReplaceQuery { page, cas } => {
                if state.slots[QUERY].cas == cas {
                    state.change(QUERY, Content::Empty);
                }
                (Reader::ReadDatabase { page, query: state.lease(QUERY) }, "replace query")
            }
            Reader::LeaseQuery { page } => {
                (Reader::ReadDatabase { page, query: state.lease(QUERY) }, "lease query")
            }
            Reader::ReadDatabase { page, query } => {
                (Reader::StoreQuery { page, query, version: state.database }, "read database")
            }
            Reader::StoreQuery { page, query, version } => {
                if self.is(Page::OfValueAtHand) {
                    self.keep(state, n, version);
                    state.sent.push(version);
                }
                self.store(state, QUERY, query, Content::Value(version));
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
                (Reader::CloseFlight { page: state.lease_page(n), version }, "lease page")
            }
            Reader::CloseFlight { page, version } => (Reader::StorePage { page, version }, "close"),
            Reader::StorePage { page, version } => {
                let content = self.page(state, n, version);
                let stored = self.store(state, PAGE, page, content);
                self.land(state, n, version, stored);
                state.serve(n, version);
                (Reader::Finished, "store page")
            }
            Reader::Joined { .. } | Reader::Finished => return None,
        };
        state.readers[n] = reader;
        Some(kind)
    }

    /// Takes the lease of the page, and begins its computation.
    fn lease_page(&self, state: &mut State, n: usize, alone: bool) -> Option<HeldLease> {
        let has_lease = self.has(Rule::LeaseBeforeReading);
        let page = has_lease.then(|| state.lease_page(n)).flatten();
        if let (false, Some((_, begun))) = (alone, &mut state.flight) {
            *begun = true;
        }
        page
    }

    /// Goes on after page and query have been asked for together.
    fn after_both(
        &self,
        state: &mut State,
        page: Option<HeldLease>,
        query: Option<HeldLease>,
        found: Option<Version>,
    ) -> Reader {
        match (page, query, found) {
            (_, _, Some(version)) if !self.has(Rule::ReadAgain) => self.after_query(page, version),
            (Some(_), Some(_), _) => Reader::ReadDatabase { page, query },
            (None, Some(held), _) => {
                // Another reader makes the page, so it needs the query.
                if state.slots[QUERY].cas == held.cas {
                    state.change(QUERY, Content::Empty);
                    self.note("give up");
                }
                Reader::GetQuery { page }
            }
            (_, None, _) => Reader::GetQuery { page },
        }
    }

    /// Gets the page, joins or leads its computation, or, by `None`, waits for the lease of another
    /// process.
    fn get_page(&self, state: &mut State, n: usize, alone: bool, may_wait: bool) -> Option<Reader> {
        match state.slots[PAGE].content {
            Content::Value(version) => {
                state.serve(n, version);
                return Some(Reader::Finished);
            }
            Content::Page { version, generation } if generation == state.generations[n] => {
                state.serve(n, version);
                return Some(Reader::Finished);
            }
            Content::Lease if may_wait && !self.one_process => return None,
            _ => {}
        }
        if alone || !self.one_process {
            return Some(Reader::LeasePage { alone: true });
        }
        // Once the result is on its way to the server, no reader can join: in reality the server
        // may already have stored it, that is, before the reader joined.
        let is_open = |leader: usize| !matches!(state.readers[leader], Reader::StorePage { .. });
        match state.flight {
            Some((leader, _)) if is_open(leader) && !self.may_share(state, leader, n) => {
                Some(Reader::LeasePage { alone: true })
            }
            Some((leader, begun)) if is_open(leader) => {
                self.note("join");
                Some(Reader::Joined { leader, early: !begun, next: None })
            }
            before => {
                self.take_over(state, before.map(|(leader, _)| leader), n);
                state.flight = Some((n, false));
                Some(Reader::LeasePage { alone: false })
            }
        }
    }

    /// The late joiners of a computation that takes no more have places in the one that `n` starts.
    fn take_over(&self, state: &mut State, before: Option<usize>, n: usize) {
        for late in 0..state.readers.len() {
            let shares = self.may_share(state, n, late);
            if let Reader::Joined { leader, early: false, next: next @ None } =
                &mut state.readers[late]
                && Some(*leader) == before
                && shares
            {
                *next = Some(n);
            }
        }
    }

    /// Returns whether a reader may join the computation of another one.
    fn may_share(&self, state: &State, leader: usize, n: usize) -> bool {
        !self.has(Rule::SameGeneration) || state.generations[leader] == state.generations[n]
    }

    /// Returns the page as a reader stores it.
    fn page(&self, state: &mut State, n: usize, version: Version) -> Content {
        if !self.is(Page::Grouped) {
            return Content::Value(version);
        }
        let is_first = self.has(Rule::GenerationFirst);
        let generation = if is_first { state.generations[n] } else { state.generation() };
        Content::Page { version, generation }
    }

    fn get_query(
        &self,
        state: &State,
        n: usize,
        page: Option<HeldLease>,
        may_wait: bool,
    ) -> Reader {
        let kept = &state.kept[self.process(n)];
        if !self.has(Rule::Confirmation)
            && let Some(version) = kept.last()
        {
            return self.after_query(page, *version);
        }
        match state.slots[QUERY].content {
            Content::Value(version) if self.is(Page::OfValueAtHand) => {
                match self.named(kept, version) {
                    Some(found) => {
                        self.note("use at hand");
                        self.after_query(page, found)
                    }
                    None => Reader::GetBytes { page, cas: state.slots[QUERY].cas, version },
                }
            }
            Content::Value(version) => self.after_query(page, version),
            // The lease of another reader. The wait for it is bounded and not a step of the model;
            // afterwards the reader computes without a lease and stores no query.
            Content::Lease if may_wait => Reader::ReadDatabase { page, query: None },
            _ => Reader::LeaseQuery { page },
        }
    }

    /// Gets the bytes that the query's entry names.
    fn get_bytes(
        &self,
        state: &mut State,
        n: usize,
        page: Option<HeldLease>,
        cas: u8,
        version: Version,
    ) -> Reader {
        let Some(found) = self.named(&state.bytes, version) else {
            return Reader::ReplaceQuery { page, cas };
        };
        self.keep(state, n, found);
        self.after_query(page, found)
    }

    /// Returns which of these values is used for an entry that names `version`.
    fn named(&self, values: &[Version], version: Version) -> Option<Version> {
        if self.has(Rule::Digest) {
            values.contains(&version).then_some(version)
        } else {
            values.last().copied()
        }
    }

    fn keep(&self, state: &mut State, n: usize, version: Version) {
        let kept = &mut state.kept[self.process(n)];
        kept.retain(|other| *other != version);
        kept.push(version);
    }

    /// Returns the process of a reader.
    fn process(&self, n: usize) -> usize {
        if self.one_process { 0 } else { n }
    }

    fn after_query(&self, page: Option<HeldLease>, version: Version) -> Reader {
        if self.is(Page::WithFragment) {
            Reader::GetFragment { page, version }
        } else {
            self.before_page(page, version)
        }
    }

    /// Gets the fragment. The page then has the version of the fragment.
    fn get_fragment(&self, state: &State, page: Option<HeldLease>, version: Version) -> Reader {
        match state.slots[FRAGMENT].content {
            Content::Value(found) if found == version || !self.has(Rule::Fingerprint) => {
                self.before_page(page, found)
            }
            _ => Reader::StoreFragment { page, version },
        }
    }

    fn before_page(&self, page: Option<HeldLease>, version: Version) -> Reader {
        if self.has(Rule::LeaseBeforeReading) {
            Reader::CloseFlight { page, version }
        } else {
            Reader::LeasePageLate { version }
        }
    }

    /// Stores a value if the rules allow it. Returns whether it was stored.
    fn store(
        &self,
        state: &mut State,
        key: usize,
        held: Option<HeldLease>,
        content: Content,
    ) -> bool {
        let slot = state.slots[key];
        let same_connection = |held: HeldLease| {
            held.connection == state.connection || !self.has(Rule::LeaseEndsWithConnection)
        };
        let allowed = match held {
            _ if !self.has(Rule::Lease) => true,
            Some(held) => {
                held.cas == slot.cas && slot.content != Content::Empty && same_connection(held)
            }
            None => false,
        };
        if allowed {
            state.change(key, content);
        }
        allowed
    }

    /// Ends the computation that a reader leads. Each joiner accepts the result, or goes with the next
    /// computation.
    fn land(&self, state: &mut State, leader: usize, version: Version, stored: bool) {
        if state.flight.is_some_and(|(n, _)| n == leader) {
            state.flight = None;
        }
        for n in 0..state.readers.len() {
            let Reader::Joined { leader: of, early, next } = state.readers[n] else { continue };
            if of == leader && (stored || early || !self.has(Rule::Joiner)) {
                self.note("take");
                state.serve(n, version);
                state.readers[n] = Reader::Finished;
            } else if of == leader {
                self.note("go on");
                state.readers[n] = self.go_on(state, n, leader, next);
            } else if next == Some(leader) {
                // If the result that it waits for is not stored, it will find this one.
                state.serve(n, version);
                state.readers[n] = Reader::Finished;
            }
        }
    }

    /// Returns the state of a late joiner for which the leader `before` has no result: it joins the computation
    /// in which it has a place, or leads that.
    fn go_on(&self, state: &mut State, n: usize, before: usize, next: Option<usize>) -> Reader {
        match (next, state.flight) {
            (Some(leader), _) => Reader::Joined { leader, early: true, next: None },
            (None, None) => {
                self.take_over(state, Some(before), n);
                state.flight = Some((n, false));
                Reader::LeasePage { alone: false }
            }
            // Another generation: a computation of its own, which the model does not share.
            (None, Some(_)) => Reader::GetPage { alone: true },
        }
    }

    /// Takes the next step of a writer: commit, two deletes, answer.
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
                    // The writer answers as if the invalidation were confirmed, and no record of
                    // the missing delete is left.
                    state.confirmed = state.confirmed.max(version);
                }
                (Writer::Finished, "answer")
            }
            Writer::Deleting { version, sent, confirmed } => {
                let inner_first = self.has(Rule::InnerFirst);
                let key = if inner_first == (sent == 0) { QUERY } else { self.outer() };
                let (done, kind) = state.delete(key, outcome);
                let confirmed = confirmed && done;
                (Writer::Deleting { version, sent: sent + 1, confirmed }, kind)
            }
            Writer::Finished => (Writer::Finished, "nothing"),
        };
        state.writers[n] = writer;
        kind
    }

    /// Takes the next step of a drainer: choose a row of the ledger, two deletes, remove the row.
    fn drain(&self, state: &mut State, n: usize, outcome: Delete) -> &'static str {
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
                let key = if sent == 0 { QUERY } else { self.outer() };
                let (done, kind) = state.delete(key, outcome);
                (Drainer::Deleting { version, sent: sent + 1, confirmed: confirmed && done }, kind)
            }
        };
        state.drainers[n] = drainer;
        kind
    }

    /// Returns the key that a write deletes after that of the query.
    fn outer(&self) -> usize {
        if self.is(Page::Grouped) { GROUP } else { PAGE }
    }

    /// Counts a step that is part of another one.
    fn note(&self, kind: &'static str) {
        *self.taken.lock().unwrap().entry(kind).or_insert(0) += 1;
    }
}

fn apply_fault(state: &mut State, fault: Step, server: Server) -> &'static str {
    state.faults -= 1;
    match fault {
        Step::Restart => {
            let empty = [Slot { content: Content::Empty, cas: 0 }; 4];
            state.slots = state.snapshot.unwrap_or(empty);
            if server == Server::Memcached {
                // It begins to number its changes anew, so CAS tokens recur.
                state.next_cas = 1;
            }
            state.bytes.clear();
            state.connection += 1;
            "server restarts"
        }
        Step::Evict(key) => {
            state.change(key, Content::Empty);
            "entry is evicted"
        }
        Step::EvictBytes => {
            state.bytes.clear();
            "bytes are evicted"
        }
        Step::Expire(key) => {
            state.change(key, Content::Empty);
            "lease expires"
        }
        Step::KillReader(n) => {
            state.readers[n] = Reader::Finished;
            // The joiners of a killed leader begin again.
            if state.flight.is_some_and(|(leader, _)| leader == n) {
                state.flight = None;
            }
            for reader in &mut state.readers {
                match reader {
                    Reader::Joined { leader, .. } if *leader == n => {
                        *reader = Reader::GetPage { alone: false };
                    }
                    Reader::Joined { next, .. } if *next == Some(n) => *next = None,
                    _ => {}
                }
            }
            "reader is killed"
        }
        Step::KillWriter(n) => {
            state.writers[n] = Writer::Finished;
            "writer is killed"
        }
        Step::KillDrainer(n) => {
            state.drainers[n] = Drainer::Idle;
            "drainer is killed"
        }
        Step::Read(_)
        | Step::GiveUpWaiting(_)
        | Step::ReserveAhead(_)
        | Step::StoreBytes
        | Step::Save
        | Step::Write(..)
        | Step::Drain(..) => "nothing",
    }
}

impl State {
    fn change(&mut self, key: usize, content: Content) {
        self.slots[key] = Slot { content, cas: self.next_cas };
        self.next_cas += 1;
    }

    /// Takes the lease of a key, if the key is empty.
    fn lease(&mut self, key: usize) -> Option<HeldLease> {
        if self.slots[key].content != Content::Empty {
            return None;
        }
        self.change(key, Content::Lease);
        Some(HeldLease { cas: self.slots[key].cas, connection: self.connection })
    }

    /// Takes the lease of the query before that of the page.
    fn reserve_ahead(&mut self, n: usize) -> Option<&'static str> {
        let Reader::LeasePage { alone } = self.readers[n] else { return None };
        let found = match self.slots[QUERY].content {
            Content::Value(version) => Some(version),
            _ => None,
        };
        let query = self.lease(QUERY);
        self.readers[n] = Reader::LeasePageAfterQuery { alone, query, found };
        Some("reserve ahead")
    }

    /// Takes the lease of the page, if there is no page, or one of another generation.
    fn lease_page(&mut self, reader: usize) -> Option<HeldLease> {
        if let Content::Page { generation, .. } = self.slots[PAGE].content
            && generation != self.generations[reader]
        {
            // The token makes sure that it is still that page.
            self.change(PAGE, Content::Empty);
        }
        self.lease(PAGE)
    }

    /// Returns the generation of the group. If it has none, begins one.
    fn generation(&mut self) -> Generation {
        if let Content::Generation(generation) = self.slots[GROUP].content {
            return generation;
        }
        let generation = self.next_generation;
        self.next_generation += 1;
        self.change(GROUP, Content::Generation(generation));
        generation
    }

    fn save(&mut self) -> &'static str {
        self.snapshot = Some(self.slots);
        "save"
    }

    fn store_bytes(&mut self) -> &'static str {
        let version = self.sent.remove(0);
        self.bytes.retain(|other| *other != version);
        self.bytes.push(version);
        "store bytes"
    }

    /// Deletes a key with this outcome. Returns whether the sender gets a confirmation.
    fn delete(&mut self, key: usize, outcome: Delete) -> (bool, &'static str) {
        if outcome != Delete::Failed {
            self.change(key, Content::Empty);
        }
        if outcome != Delete::Confirmed {
            self.faults -= 1;
        }
        let kind = match (outcome, key) {
            (Delete::Failed, _) => "delete fails",
            (Delete::Unconfirmed, _) => "confirmation of a delete is lost",
            (Delete::Confirmed, QUERY) => "delete query",
            (Delete::Confirmed, GROUP) => "delete group",
            (Delete::Confirmed, _) => "delete page",
        };
        (outcome == Delete::Confirmed, kind)
    }

    /// Notes that both deletes of a write have been confirmed.
    fn confirm(&mut self, version: Version) {
        self.ledger.retain(|row| *row != version);
        self.confirmed = self.confirmed.max(version);
    }

    /// Gives a page to a reader, and checks its version.
    fn serve(&mut self, reader: usize, version: Version) {
        self.stale |= version < self.required[reader];
    }
}
