//! Executes every command in the guide, chapter by chapter, and compares what it prints with the text.
//!
//! A block of the language `console` holds commands, each after `$ `, and what they print: `…` stands for any text of a
//! line, and as a line of its own for any lines. Words after `console` say how a block is run:
//!
//! - `server`: the command goes on running, until another one on its port, or the end of the chapter;
//! - `eventually`: the command is repeated until it prints what is written.
//!
//! Other languages, such as `sh`, are for commands that need an account elsewhere; they are not executed.
//!
//! The programs are those that Cargo has built: `cargo build --workspace --all-features`. Ports are replaced by free ones.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod shell;
mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

use shell::Shell;
use text::{Block, blocks, matches};

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guide")
}

/// Returns the files of the chapters, in their order.
fn chapters() -> Vec<PathBuf> {
    let folder = guide().join("src");
    let summary = fs::read_to_string(folder.join("SUMMARY.md")).unwrap();
    let files = summary
        .lines()
        .filter_map(|line| line.strip_prefix("- [")?.split_once("](")?.1.strip_suffix(')'));
    files.map(|file| folder.join(file)).collect()
}

/// Executes the commands of a chapter.
fn execute(chapter: &Path, mut shell: Shell) {
    let blocks = blocks(&fs::read_to_string(chapter).unwrap());
    assert!(!blocks.is_empty(), "the chapter has no commands");
    for block in blocks {
        run(&mut shell, &block);
    }
}

fn run(shell: &mut Shell, block: &Block) {
    for (command, expected) in &block.commands {
        if block.is_server {
            shell.start(command, |printed| matches(expected, printed));
        } else if block.is_eventual {
            shell.repeat(command, |printed| matches(expected, printed));
        } else {
            let printed = shell.run(command);
            let text = expected.join("\n");
            assert!(matches(expected, &printed), "$ {command}\nprints\n{printed}\nand not\n{text}");
        }
    }
}

#[test]
fn the_front_page_prints_what_its_text_says() {
    execute(&guide().join("src/README.md"), Shell::new());
}

#[test]
fn chapter_0_prints_what_its_text_says() {
    // It starts memcached itself, and names it for all chapters.
    execute(&chapters()[0], Shell::new());
}

macro_rules! chapters {
    ($($name:ident $number:literal)*) => {$(
        #[test]
        fn $name() {
            execute(&chapters()[$number], Shell::with_memcached());
        }
    )*};
}

chapters! {
    chapter_1_prints_what_its_text_says 1
    chapter_2_prints_what_its_text_says 2
    chapter_3_prints_what_its_text_says 3
    chapter_4_prints_what_its_text_says 4
    chapter_5_prints_what_its_text_says 5
    chapter_6_prints_what_its_text_says 6
    chapter_7_prints_what_its_text_says 7
    chapter_8_prints_what_its_text_says 8
    chapter_9_prints_what_its_text_says 9
    chapter_10_prints_what_its_text_says 10
    chapter_11_prints_what_its_text_says 11
}

#[test]
fn every_chapter_ends_with_a_check_the_risks_and_further_reading() {
    for chapter in chapters() {
        let text = fs::read_to_string(&chapter).unwrap();
        let headings: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        let last = headings.len().saturating_sub(3);
        let expected = ["## Check yourself", "## What can go wrong", "## Where to read on"];
        assert_eq!(headings[last..], expected, "{}", chapter.display());
    }
}

#[test]
fn every_program_has_at_most_250_lines_of_rust() {
    fn rust_files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
    }
    let lines = |file: &PathBuf| fs::read_to_string(file).unwrap().lines().count();
    let steps: Vec<_> = fs::read_dir(guide().join("steps")).unwrap().collect();
    assert_eq!(steps.len(), chapters().len());
    for step in steps {
        let sources = step.unwrap().path().join("src");
        let program: usize = rust_files(&sources).iter().map(lines).sum();
        assert!(program <= 250, "{} has {program} lines", sources.display());
        for other in rust_files(&sources.join("bin")) {
            assert!(lines(&other) <= 250, "{}", other.display());
        }
    }
}

#[test]
fn every_link_to_the_repository_has_the_address_in_cargo_toml() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> = ["", "docs", "guide", "guide/src"].map(|name| root.join(name)).into();
    folders.extend(fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path()));
    let mut links = 0;
    for file in folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()) {
        let file = file.unwrap().path();
        let is_text = |extension| ["md", "toml", "json"].iter().any(|text| *text == extension);
        if !file.extension().is_some_and(is_text) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for link in text.split("https://github.com/").skip(1) {
            let mut parts = link.split(|c: char| c.is_whitespace() || "/)>\"'`#?".contains(c));
            if let (Some(owner), Some("tasklist")) = (parts.next(), parts.next()) {
                let address = format!("https://github.com/{owner}/tasklist");
                assert_eq!(address, env!("CARGO_PKG_REPOSITORY"), "{}", file.display());
                links += 1;
            }
        }
    }
    assert!(links > 10, "{links} links");
}
