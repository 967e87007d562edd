//! A writer that is killed between its commit and the deletion of the entry: without a ledger, and with one.
//!
//! The program starts itself again as the writer, waits until it has committed, and kills it.

use std::{
    env,
    error::Error,
    future::pending,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use actix_web::rt::time::sleep;
use everfresh::{
    Attempt, Cache, DieselDatabase, DieselLedger, DieselPoolError, Invalidation, Lifetime,
};
use step_01::database::{self, Database, Task};
use step_03::{Pool, open_cache, open_plain_cache};

// ANCHOR: writers
/// Commits, and would delete the entry next, but gets stuck.
async fn write_by_hand(database: &Database, cache: &Cache) -> Result<(), Box<dyn Error>> {
    database.insert("Tea".to_owned()).await?;
    println!("committed");
    pending::<()>().await;
    cache.delete("tasks").await;
    Ok(())
}

/// The same, with a row of the ledger in the transaction.
async fn write_with_ledger(cache: &Cache, pool: Pool) -> Result<(), Box<dyn Error>> {
    let writer = cache.writer(DieselLedger(pool.clone()));
    let written = writer.write(|attempt: Attempt| async move {
        let insert = move |conn: &mut _| {
            database::insert(conn, "Tea")?;
            let tasks = Invalidation::of(["tasks"]);
            Ok(attempt.announce(tasks, |row| DieselLedger::<Pool>::insert(conn, row))?)
        };
        let row = pool.write(insert).await?;
        println!("committed");
        pending::<()>().await;
        Ok::<_, DieselPoolError>(((), row))
    });
    Ok(written.await?)
}
// ANCHOR_END: writers

async fn shown(cache: &Cache, database: &Database) -> Result<String, actix_web::Error> {
    let read = async || database.tasks().await;
    let tasks: Vec<Task> = cache.get_or_compute("tasks", Lifetime::Forever, read).await?;
    let names: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
    Ok(names.join(", "))
}

/// Starts the writer, and kills it when it has committed.
fn crash(way: &str, file: &str) -> Result<(), Box<dyn Error>> {
    let mut writer = Command::new(env::current_exe()?);
    let mut writer = writer.args([way, file]).stdout(Stdio::piped()).spawn()?;
    let mut committed = String::new();
    BufReader::new(writer.stdout.take().ok_or("no output")?).read_line(&mut committed)?;
    writer.kill()?;
    writer.wait()?;
    println!("  writer: {}, then killed", committed.trim());
    Ok(())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["by hand", file] => {
            let cache = open_plain_cache("crash:")?;
            return write_by_hand(&Database::open_file(file)?, &cache).await;
        }
        ["ledger", file] => {
            let (cache, pool) = open_cache(&Database::open_file(file)?, "crash:")?;
            return write_with_ledger(&cache, pool).await;
        }
        _ => {}
    }

    for way in ["by hand", "ledger"] {
        println!("{way}:");
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("crash.sqlite3").to_string_lossy().into_owned();
        let database = Database::open_file(&file)?;
        database.insert("Milk".to_owned()).await?;
        let (cache, pool) = match way {
            "ledger" => open_cache(&database, "crash:")?,
            _ => (open_plain_cache("crash:")?, step_03::pool(&database)),
        };
        if !cache.is_shared() {
            return Err("MEMCACHE_SERVERS is not set: two processes share a memcached".into());
        }
        // Replays what dead writers have left.
        let _replaying = (way == "ledger").then(|| cache.writer(DieselLedger(pool)));
        cache.delete("tasks").await;
        println!("  visitor: sees {}", shown(&cache, &database).await?);

        crash(way, &file)?;
        let started = Instant::now();
        while !shown(&cache, &database).await?.contains("Tea") {
            if started.elapsed() > Duration::from_secs(3) {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let seconds = started.elapsed().as_secs_f32();
        let seen = shown(&cache, &database).await?;
        let verdict = if seen.contains("Tea") { "right" } else { "stale until the next write" };
        println!("  visitor, {seconds:.1} s later: sees {seen}: {verdict}");
    }
    Ok(())
}
