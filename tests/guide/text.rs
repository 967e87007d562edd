//! The commands in a chapter, and how what they print is compared.

/// A block of commands.
#[derive(Debug, Default)]
pub struct Block {
    pub is_server: bool,
    pub is_eventual: bool,
    /// Each command, and the lines that it prints.
    pub commands: Vec<(String, Vec<String>)>,
}

/// Returns the blocks of a text.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```console") else { continue };
        let mut block = Block {
            is_server: info.contains("server"),
            is_eventual: info.contains("eventually"),
            ..Block::default()
        };
        for line in lines.by_ref().take_while(|line| *line != "```") {
            if let Some(command) = line.strip_prefix("$ ") {
                block.commands.push((command.to_owned(), Vec::new()));
            } else {
                let last = block.commands.last_mut();
                let (command, printed) = last.expect("a command before its output");
                match command.strip_suffix('\\') {
                    Some(begin) if printed.is_empty() => {
                        *command = format!("{begin} {}", line.trim());
                    }
                    _ => printed.push(line.trim_end().to_owned()),
                }
            }
        }
        blocks.push(block);
    }
    blocks
}

/// Returns whether a program has printed what is expected.
pub fn matches(expected: &[String], printed: &str) -> bool {
    let printed: Vec<_> = printed.lines().map(str::trim_end).collect();
    lines_match(expected, &printed)
}

fn lines_match(expected: &[String], printed: &[&str]) -> bool {
    match expected {
        [] => printed.is_empty(),
        [any, rest @ ..] if any == "…" => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        [line, rest @ ..] => match printed {
            [first, others @ ..] => line_matches(line, first) && lines_match(rest, others),
            [] => false,
        },
    }
}

fn line_matches(expected: &str, printed: &str) -> bool {
    let Some((begin, expected)) = expected.split_once('…') else { return expected == printed };
    let Some(rest) = printed.strip_prefix(begin) else { return false };
    let mut ends = (0..=rest.len()).filter(|at| rest.is_char_boundary(*at));
    ends.any(|at| line_matches(expected, &rest[at..]))
}

#[test]
fn an_ellipsis_stands_for_any_text_of_a_line_and_for_any_lines() {
    let expected: Vec<_> = ["took … s", "…", "end"].map(str::to_owned).to_vec();
    assert!(matches(&expected, "took 2.01 s\nend"));
    assert!(matches(&expected, "took 2 s\none\ntwo\nend\n"));
    assert!(!matches(&expected, "took 2 ms\nend"));
    assert!(!matches(&expected, "took 2 s\nend\nmore"));
}

#[test]
fn blocks_hold_commands_with_what_they_print() {
    let text = "a\n```console,server\n$ one \\\n  two\nprinted\n$ three\n```\n```sh\n$ no\n```\n";
    let blocks = blocks(text);
    assert_eq!(blocks.len(), 1);
    assert!(blocks[0].is_server);
    let commands =
        [("one  two".to_owned(), vec!["printed".to_owned()]), ("three".to_owned(), vec![])];
    assert_eq!(blocks[0].commands, commands);
}
