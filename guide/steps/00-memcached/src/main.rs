//! Chapter 0: memcached by hand. Sends the commands of its text protocol, and prints what the server answers.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::TcpStream,
    process::ExitCode,
};

// ANCHOR: exchange
/// A connection to a memcached server.
struct Server(BufReader<TcpStream>);

impl Server {
    fn connect() -> io::Result<Self> {
        let servers = env::var("MEMCACHE_SERVERS").unwrap_or("localhost:11211".to_owned());
        let first = servers.split(',').next().unwrap_or_default().to_owned();
        TcpStream::connect(&first).map(|stream| Self(BufReader::new(stream))).map_err(|error| {
            io::Error::other(format!("no memcached on {first}: {error}. Start one: memcached"))
        })
    }

    /// Sends a command. Returns the lines of the answer.
    fn send(&mut self, command: &str) -> io::Result<Vec<String>> {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::Error::other("the server closed the connection"));
            }
            lines.push(line.trim_end().to_owned());
            // A value and statistics are followed by END; any other answer is one line.
            let is_more = line.starts_with("VALUE") || line.starts_with("STAT ");
            if line.starts_with("END") || !(is_more || lines[0].starts_with("VALUE")) {
                return Ok(lines);
            }
        }
    }

    fn show(&mut self, command: &str) -> io::Result<()> {
        for line in command.lines() {
            println!("> {line}");
        }
        for line in self.send(&command.replace('\n', "\r\n"))? {
            println!("< {line}");
        }
        Ok(())
    }
}
// ANCHOR_END: exchange

fn main() -> ExitCode {
    let run = match env::args().nth(1).as_deref() {
        None => by_hand,
        Some("fill") => fill,
        Some(_) => {
            eprintln!("usage: step-00 [fill]");
            return ExitCode::from(2);
        }
    };
    match Server::connect().and_then(|mut server| run(&mut server)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

// ANCHOR: by_hand
fn by_hand(server: &mut Server) -> io::Result<()> {
    // set KEY FLAGS SECONDS BYTES. 0 seconds: for as long as there is room.
    server.show("set greeting 0 0 5\nhello")?;
    server.show("get greeting")?;
    server.show("delete greeting")?;
    server.show("get greeting")
}
// ANCHOR_END: by_hand

// ANCHOR: fill
/// Stores twice as much as the server has room for, and asks for the first value.
fn fill(server: &mut Server) -> io::Result<()> {
    let stats = server.send("stats")?;
    let limit = "STAT limit_maxbytes ";
    let limit = stats.iter().find_map(|line| line.strip_prefix(limit)?.parse::<usize>().ok());
    let value = "x".repeat(100_000);
    let count = 2 * limit.unwrap_or(64 << 20) / value.len();
    let mut stored = 0;
    for n in 0..count {
        let answer = server.send(&format!("set fill{n} 0 60 {}\r\n{value}", value.len()))?;
        stored += usize::from(answer == ["STORED"]);
    }
    println!("{stored} values of 100 kB were stored");
    let mut found = 0;
    for n in 0..count {
        found += usize::from(server.send(&format!("get fill{n}"))?.len() > 1);
    }
    println!("{found} of them are still there");
    println!(
        "the first one is {}",
        match server.send("get fill0")?.len() {
            1 => "gone",
            _ => "there",
        }
    );
    Ok(())
}
// ANCHOR_END: fill
