//! The programs that are tested: how they are started, written to and read.

use std::process::Command;

use diesel::{QueryableByName, prelude::*, sql_types::BigInt};
use test_support::{
    http::Reply,
    program::{binary, command},
    secrets::SECRET_KEY,
};

use crate::{checker::WriteKind, cluster::Cluster};

/// A program that shows a list.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Subject {
    /// The task list: its page and query are deleted by name.
    Tasklist,
    /// The wiki among the examples of `everfresh`: its lists and searches are in a group.
    Wiki,
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
                    .env("MEMCACHE_SERVERS", servers);
                command
            }
        }
    }

    /// Returns the request that adds or deletes an item.
    pub fn write_request(self, cluster: &Cluster, kind: WriteKind, name: &str) -> WriteRequest {
        match (self, kind) {
            (Self::Tasklist, WriteKind::Add) => {
                WriteRequest { path: "/".to_owned(), fields: vec![("name", name.to_owned())] }
            }
            (Self::Tasklist, WriteKind::Delete) => {
                let id = self.id(cluster, name).unwrap_or(i64::MAX);
                WriteRequest { path: format!("/{id}/delete"), fields: Vec::new() }
            }
            (Self::Wiki, _) => {
                let text = if kind == WriteKind::Add { "alpha beta gamma" } else { "" };
                let fields = vec![("text", text.to_owned())];
                WriteRequest { path: format!("/wiki/{name}"), fields }
            }
        }
    }

    /// Returns the n-th page to be read. All show all items, and those of the wiki have keys of their own.
    pub fn page(self, number: usize) -> &'static str {
        const LISTS: [&str; 6] =
            ["/", "/api", "/api?q=alpha", "/api?q=beta&page=1", "/?q=gamma", "/feed?q=beta"];

        match self {
            Self::Tasklist => "/",
            Self::Wiki => LISTS[number % LISTS.len()],
        }
    }

    /// Returns the names of the items on a page.
    pub fn names(self, page: &Reply) -> Vec<String> {
        if self == Self::Tasklist {
            return page.task_names().into_iter().map(str::to_owned).collect();
        }
        let is_name = |word: &&str| {
            word.strip_prefix('t').is_some_and(|number| number.parse::<u64>().is_ok())
        };
        let words = page.body.split(|c: char| !c.is_ascii_alphanumeric());
        words.filter(is_name).map(str::to_owned).collect()
    }

    /// Returns the number of the row of an item, if it exists.
    pub fn id(self, cluster: &Cluster, name: &str) -> Option<i64> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            id: i64,
        }

        let table = match self {
            Self::Tasklist => "task",
            Self::Wiki => "article",
        };
        let query =
            diesel::sql_query(format!("SELECT rowid AS id FROM {table} WHERE name = '{name}'"));
        query.get_result::<Row>(&mut cluster.database()).optional().unwrap().map(|row| row.id)
    }
}
