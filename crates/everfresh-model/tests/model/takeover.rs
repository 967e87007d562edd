//! A model of the replay: one process replays the ledger for all, and another one takes over when it is gone.
//!
//! Time passes in ticks of 50 ms. Each process wakes every five ticks, looks at the number in the cache and,
//! unless another process has just added to it, replays the rows of the ledger and adds one itself. The
//! processes may begin in any phase, and act in any order within a tick.
//!
//! One row is left behind by a write. The property `in_time` must hold in every state: the row is replayed
//! before it has become too old, if some living process can reach the cache server of its keys.

use std::iter;

use stateright::{Model, Property};

/// The ticks between two replays, 250 ms, as in `everfresh::REPLAY_INTERVAL`.
const INTERVAL: u8 = 5;
/// The ticks after which a number that has not changed is out of date, 350 ms.
const PATIENCE: u8 = 7;
/// The age in ticks at which a row is replayed, 250 ms.
const AGE: u8 = 5;

/// A rule that can be switched off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    /// A number that has not changed for a while is out of date.
    Patience,
    /// A process adds to the number only when it has confirmed all rows.
    BeatAfterConfirmation,
    /// A process that cannot read the number replays.
    UnknownIsSilence,
}

#[derive(Clone, Debug)]
pub(crate) struct Takeover {
    pub(crate) processes: usize,
    pub(crate) faults: u8,
    /// The age in ticks that the row must not exceed.
    pub(crate) bound: u8,
    /// Whether the first process cannot reach the server of the row's keys.
    pub(crate) is_first_cut_off: bool,
    pub(crate) without: Option<Rule>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Phase {
    Asleep,
    /// It has read the ledger and will remove the rows that it has found.
    Replaying {
        has_found: bool,
    },
    /// It has confirmed all rows, or counts as if it had.
    Beating,
    Dead,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Process {
    phase: Phase,
    /// Whether it has just been started. Its first replay does not look at the number, and includes rows of any
    /// age.
    is_new: bool,
    /// The ticks until it wakes.
    wakes_in: u8,
    /// The number that it has seen last, and for how many ticks.
    seen: Option<(u8, u8)>,
    /// The number after its last beat.
    own: Option<u8>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct State {
    processes: Vec<Process>,
    /// The number in the cache; `None` while its server is away.
    number: Option<u8>,
    /// The row's age in ticks, from its commit until it is removed.
    row: Option<u8>,
    /// Whether the row is still to be written.
    is_to_come: bool,
    faults: u8,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Tick,
    Act(usize),
    Commit,
    /// The process dies, or hangs for good.
    Kill(usize),
    /// The server of the number goes away.
    Lose,
}

impl Model for Takeover {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        // Every combination of phases, as the digits of a number.
        let digits = |mut number: usize| {
            iter::from_fn(move || {
                let digit = number % usize::from(INTERVAL);
                number /= usize::from(INTERVAL);
                u8::try_from(digit).ok()
            })
        };
        let combinations = usize::from(INTERVAL).pow(u32::try_from(self.processes).unwrap());
        let process = |wakes_in| Process {
            phase: Phase::Asleep,
            is_new: true,
            wakes_in,
            seen: None,
            own: None,
        };
        let state = |number| State {
            processes: digits(number).take(self.processes).map(process).collect(),
            number: Some(0),
            row: None,
            is_to_come: true,
            faults: self.faults,
        };
        (0..combinations).map(state).collect()
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        let alive = |n: &usize| state.processes[*n].phase != Phase::Dead;
        let alive: Vec<_> = (0..self.processes).filter(alive).collect();
        let due = |n: &&usize| state.processes[**n].wakes_in == 0;
        let due: Vec<_> = alive.iter().filter(due).map(|n| Step::Act(*n)).collect();
        if due.is_empty() {
            steps.push(Step::Tick);
        }
        steps.extend(due);
        if state.is_to_come {
            steps.push(Step::Commit);
        }
        if state.faults > 0 {
            // The row can be replayed only by a process that reaches its server.
            let others = |n: &usize| alive.iter().any(|other| other != n && self.reaches(*other));
            steps.extend(alive.iter().copied().filter(others).map(Step::Kill));
            steps.extend(state.number.map(|_| Step::Lose));
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        match step {
            Step::Tick => next.tick(),
            Step::Act(n) => self.act(&mut next, n),
            Step::Commit => (next.row, next.is_to_come) = (Some(0), false),
            Step::Kill(n) => {
                next.processes[n].phase = Phase::Dead;
                next.faults -= 1;
            }
            Step::Lose => {
                next.number = None;
                next.faults -= 1;
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("in time", |system: &Self, state: &State| {
                state.row.is_none_or(|age| age <= system.bound)
            }),
            Property::sometimes("replayed", |_, state: &State| {
                !state.is_to_come && state.row.is_none()
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        // Later states only repeat earlier ones.
        state.number.is_none_or(|number| number < 12)
    }
}

impl Takeover {
    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    fn reaches(&self, n: usize) -> bool {
        n > 0 || !self.is_first_cut_off
    }

    /// Takes the next step of a process that is awake.
    fn act(&self, state: &mut State, n: usize) {
        let number = state.number;
        let process = &mut state.processes[n];
        let mut sleeps = true;
        match process.phase {
            Phase::Asleep => {
                let is_new = std::mem::take(&mut process.is_new);
                if !is_new && self.is_anothers(process, number) {
                    process.wakes_in = INTERVAL;
                    return;
                }
                let has_found = state.row.is_some_and(|age| is_new || age >= AGE);
                (process.phase, sleeps) = (Phase::Replaying { has_found }, false);
            }
            Phase::Replaying { has_found } => {
                let is_confirmed = !has_found || self.reaches(n);
                if has_found && is_confirmed {
                    state.row = None;
                }
                process.phase = Phase::Asleep;
                if is_confirmed || !self.has(Rule::BeatAfterConfirmation) {
                    (process.phase, sleeps) = (Phase::Beating, false);
                }
            }
            Phase::Beating => {
                state.number = number.map(|number| number + 1);
                (process.phase, process.own) = (Phase::Asleep, state.number);
            }
            Phase::Dead => {}
        }
        if sleeps {
            process.wakes_in = INTERVAL;
        }
    }

    /// Reads the number. Returns whether another process has just added to it.
    fn is_anothers(&self, process: &mut Process, number: Option<u8>) -> bool {
        let Some(number) = number else { return !self.has(Rule::UnknownIsSilence) };
        let since = match process.seen {
            Some((seen, since)) if seen == number => since,
            _ => 0,
        };
        process.seen = Some((number, since));
        process.own != Some(number) && (since < PATIENCE || !self.has(Rule::Patience))
    }
}

impl State {
    fn tick(&mut self) {
        for process in &mut self.processes {
            process.wakes_in = process.wakes_in.saturating_sub(1);
            if let Some((_, since)) = &mut process.seen {
                *since = since.saturating_add(1).min(PATIENCE);
            }
        }
        self.row = self.row.map(|age| age.saturating_add(1).min(60));
    }
}
