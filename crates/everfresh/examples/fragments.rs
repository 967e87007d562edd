//! Fragments of a template, one within another: a change renders one row anew. The list is put together from the rows.
//!
//! ```sh
//! cargo run -p everfresh --features tera --example fragments
//! ```

#![allow(clippy::print_stdout, reason = "it shows what it does")]

use everfresh::{Cache, Templates, TemplatesError};
use serde::Serialize;
use tera::{Context, Tera};

/// `of=` names the value that a fragment is made of: a fragment of another value is not used.
const LIST: &str = r#"{% cache none, "list", of=tasks %}<ul>{% for task in tasks %}
{% cache none, "row", task.id, of=task %}<li>{{ task.name }}</li>{% endcache %}
{% endfor %}</ul>{% endcache %}"#;

#[derive(Serialize)]
struct Task {
    id: u32,
    name: &'static str,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), TemplatesError> {
    let cache = Cache::memory(1 << 20).build();
    let templates = Templates::new(Tera::default(), [("list.html", LIST)])?;
    let mut tasks = [Task { id: 1, name: "Milk" }, Task { id: 2, name: "Tea" }];

    let mut rendered = 0;
    for name in ["Tea", "Tea", "Green tea"] {
        tasks[1].name = name;
        let mut context = Context::new();
        context.insert("tasks", &tasks);
        if let Err(error) = templates.render(&cache, "list.html", &context).await {
            println!("{error}");
        }
        // Each rendered row is stored.
        let fills = cache.stats()["cache"].fills;
        println!("{name}: {} rows rendered", fills - rendered);
        rendered = fills;
    }
    Ok(())
}
