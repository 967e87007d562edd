//! The parts of the task list that do not change from chapter to chapter: the database, the page, and the rule by
//! which forms are accepted.

pub mod database;
pub mod forms;
pub mod page;

/// The address on which a step listens: port 8080, or that in `PORT`.
pub fn address() -> String {
    let port = std::env::var("PORT").unwrap_or("8080".to_owned());
    format!("127.0.0.1:{port}")
}
