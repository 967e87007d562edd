//! The programs that are tested: how they are started, written to and read.

use std::{collections::HashSet, process::Command};

use diesel::{
    QueryableByName,
    prelude::*,
    sql_types::{BigInt, Bool},
};
use test_support::{
    http::Reply,
    program::{binary, command},
    secrets::SECRET_KEY,
};

use crate::{
    checker::{Change, Fact},
    cluster::Cluster,
};

/// A program that shows lists of tasks.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Subject {
    /// The task list: its start page is deleted by name, its filters and pages are in groups.
    Tasklist,
    /// The wiki among the examples of `everfresh`: its lists and searches are in a group.
    Wiki,
}

/// A task, as its writers know it.
#[derive(Clone, Debug)]
pub struct Task {
    pub name: String,
    pub completed: bool,
}

/// A change of one task.
#[derive(Clone, Debug)]
pub enum Operation {
    Add,
    /// Changes the name.
    Rename(String),
    /// Completes the task, or opens it again.
    Complete(bool),
    Delete,
    /// Brings back what the same visitor has deleted.
    Undo,
}

/// The list of all tasks.
const ALL: &str = "all";

impl Task {
    /// What is true while the task exists.
    fn facts(&self) -> [Fact; 2] {
        [(ALL, self.name.clone()), (list_of(self.completed), self.name.clone())]
    }
}

fn list_of(completed: bool) -> &'static str {
    if completed { "completed" } else { "active" }
}

impl Operation {
    /// Returns the task after the operation; `None` if it is gone.
    pub fn result(&self, task: &Task) -> Option<Task> {
        match self {
            Self::Add | Self::Undo => Some(task.clone()),
            Self::Rename(name) => Some(Task { name: name.clone(), ..task.clone() }),
            Self::Complete(completed) => Some(Task { completed: *completed, ..task.clone() }),
            Self::Delete => None,
        }
    }

    /// Returns what the operation changes.
    pub fn changes(&self, task: &Task) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        if !matches!(self, Self::Add | Self::Undo) {
            changes.extend(task.facts().map(|fact| (fact, false)));
        }
        for fact in self.result(task).iter().flat_map(Task::facts) {
            changes.retain(|(changed, _)| *changed != fact);
            if matches!(self, Self::Add | Self::Undo) || !task.facts().contains(&fact) {
                changes.push((fact, true));
            }
        }
        changes
    }
}

/// A form that is sent.
pub struct WriteRequest {
    pub path: String,
    pub fields: Vec<(&'static str, String)>,
}

impl Subject {
    /// Returns a command that starts the program.
    pub fn command(self, cluster: &Cluster) -> Command {
        let servers: Vec<_> =
            cluster.proxies.iter().map(|proxy| proxy.address.to_string()).collect();
        let servers = servers.join(",");
        match self {
            Self::Tasklist => command(
                cluster.folder.path(),
                &[
                    ("PORT", "0"),
                    ("HOST", "127.0.0.1"),
                    ("SECRET_KEY", SECRET_KEY),
                    ("DATABASE_URL", &cluster.url),
                    ("MEMCACHIER_SERVERS", &servers),
                    ("MEMCACHE_PROTOCOL", &cluster.protocol),
                    ("CACHE_KEY_PREFIX", &cluster.prefix),
                    // Longer than the pauses of a busy machine, so that only a fault is an outage.
                    ("MEMCACHE_TIMEOUT", "500ms"),
                    ("SESSION_STORE", "cookie"),
                    ("RUST_LOG", "error"),
                ],
            ),
            Self::Wiki => {
                let program = binary().with_file_name("examples").join("wiki");
                let remedy = "run `cargo build --package everfresh --all-features --examples`";
                assert!(program.exists(), "{remedy}, with the profile of this test");
                let mut command = Command::new(program);
                command
                    .current_dir(cluster.folder.path())
                    .env_clear()
                    .env("WIKI_ADDRESS", "127.0.0.1:0")
                    .env("WIKI_DATABASE", cluster.url.trim_start_matches("sqlite://"))
                    .env("MEMCACHE_SERVERS", servers)
                    .env("MEMCACHE_PROTOCOL", &cluster.protocol);
                command
            }
        }
    }

    /// Returns the request for an operation.
    pub fn write_request(
        self,
        cluster: &Cluster,
        operation: &Operation,
        task: &Task,
    ) -> WriteRequest {
        let name = task.name.clone();
        let (path, fields) = match (self, operation) {
            (Self::Wiki, Operation::Delete) => {
                (format!("/wiki/{name}"), vec![("text", String::new())])
            }
            (Self::Wiki, _) => {
                (format!("/wiki/{name}"), vec![("text", "alpha beta gamma".to_owned())])
            }
            (Self::Tasklist, Operation::Add) => ("/".to_owned(), vec![("name", name)]),
            (Self::Tasklist, Operation::Undo) => ("/undo".to_owned(), vec![]),
            (Self::Tasklist, other) => {
                let id = self.row(cluster, &name).map_or(i64::MAX, |(id, _)| id);
                match other {
                    Operation::Rename(new) => {
                        (format!("/{id}"), vec![("name", new.clone()), ("original", name)])
                    }
                    Operation::Complete(true) => (format!("/{id}/complete"), vec![]),
                    Operation::Complete(false) => (format!("/{id}/reopen"), vec![]),
                    _ => (format!("/{id}/delete"), vec![]),
                }
            }
        };
        WriteRequest { path, fields }
    }

    /// Returns the n-th page to be read, and the lists that it shows.
    pub fn page(self, number: usize) -> (&'static str, &'static [&'static str]) {
        const EACH: &[&str] = &[ALL, "active", "completed"];
        const PAGES: [(&str, &[&str]); 6] = [
            ("/", EACH),
            ("/active", &["active"]),
            ("/completed", &["completed"]),
            // Each with a key of its own.
            ("/?page=1", EACH),
            ("/active?page=9", &["active"]),
            ("/?page=2", EACH),
        ];
        const LISTS: [&str; 6] =
            ["/", "/api", "/api?q=alpha", "/api?q=beta&page=1", "/?q=gamma", "/feed?q=beta"];

        match self {
            Self::Tasklist => PAGES[number % PAGES.len()],
            Self::Wiki => (LISTS[number % LISTS.len()], &[ALL]),
        }
    }

    /// Returns what a page shows.
    pub fn facts(self, page: &Reply, lists: &[&'static str]) -> HashSet<Fact> {
        if self == Self::Tasklist {
            let mut facts = HashSet::new();
            for row in page.body.split("<li").filter(|row| row.contains("class=\"task-name\"")) {
                let completed = row.starts_with(" class=\"completed\"");
                let name = row.split("dir=\"auto\">").nth(1).unwrap().split('<').next().unwrap();
                let task = Task { name: name.to_owned(), completed };
                facts.extend(task.facts().into_iter().filter(|(list, _)| lists.contains(list)));
                // A task in the list of others.
                assert!(lists.contains(&list_of(completed)), "{name} in {lists:?}: {row}");
            }
            return facts;
        }
        let is_name = |word: &&str| {
            word.strip_prefix('t').is_some_and(|number| number.parse::<u64>().is_ok())
        };
        let words = page.body.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter(is_name).map(|name| (ALL, name.to_owned())).collect()
    }

    /// Returns whether a fact is true in the database.
    pub fn is_true(self, cluster: &Cluster, (list, name): &Fact) -> bool {
        let row = self.row(cluster, name);
        row.is_some_and(|(_, completed)| *list == ALL || *list == list_of(completed))
    }

    /// Returns the number of a task's row, and whether it is completed.
    fn row(self, cluster: &Cluster, name: &str) -> Option<(i64, bool)> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            id: i64,
            #[diesel(sql_type = Bool)]
            completed: bool,
        }

        let columns = match self {
            Self::Tasklist => "completed FROM task",
            Self::Wiki => "0 AS completed FROM article",
        };
        let query = format!("SELECT rowid AS id, {columns} WHERE name = '{name}'");
        let row = diesel::sql_query(query).get_result::<Row>(&mut cluster.database()).optional();
        row.unwrap().map(|row| (row.id, row.completed))
    }
}
