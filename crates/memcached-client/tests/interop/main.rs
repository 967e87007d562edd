//! Entries that clients of other languages share with this one: values, and the flags by which those clients
//! know the types of values.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::{path::Path, process::Command};

use memcached_client::{Client, Item, Protocol, Value};
use test_support::memcached::{Kind, Memcached};

const PROTOCOLS: [Protocol; 2] = [Protocol::Binary, Protocol::Meta];

/// Runs a script beside this file, which fails if it does not find what it expects.
fn run(program: &str, arguments: &[&str], script: &str, script_arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
    let output = Command::new(program)
        .args(arguments)
        .arg(script)
        .args(script_arguments)
        // Debian's Go packages are not modules.
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode")])
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run bin/setup"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn store(client: &Client, entries: &[(&str, &[u8], u32)]) {
    for (key, value, flags) in entries {
        client.set(format!("ours/{key}"), Item::from(value).flags(*flags)).await.unwrap();
    }
}

async fn found(client: &Client, key: &str) -> Value {
    client.get(format!("theirs/{key}")).await.unwrap().expect(key)
}

async fn assert_found(client: &Client, entries: &[(&str, &[u8], u32)]) {
    for (key, value, flags) in entries {
        let found = found(client, key).await;
        assert_eq!((&found.data[..], found.flags), (*value, *flags), "{key}");
    }
}

#[tokio::test]
async fn pylibmc_and_this_client_read_each_others_values() {
    // The flags of pylibmc: 4 is an integer, 8 compressed by zlib, 16 text.
    const TEXT: u32 = 16;
    for ours in PROTOCOLS {
        for theirs in ["binary", "text"] {
            let server = Memcached::start(Kind::Plain);
            let client = server.client(ours);
            let entries: [(&str, &[u8], u32); 5] = [
                ("text", "Grüße".as_bytes(), TEXT),
                ("bytes", b"\x00\xff", 0),
                ("number", b"42", 4),
                ("counter", b"40", 4),
                ("empty", b"", 0),
            ];
            store(&client, &entries).await;
            run(
                "/usr/bin/python3",
                &[],
                "pylibmc_client.py",
                &[&server.address().to_string(), theirs],
            );
            let theirs: [(&str, &[u8], u32); 4] = [
                ("text", "Grüße".as_bytes(), TEXT),
                ("bytes", b"\x00\xff", 0),
                ("number", b"42", 4),
                ("schlüssel", b"key", 0),
            ];
            assert_found(&client, &theirs).await;
            let large = found(&client, "large").await;
            assert!(large.flags == TEXT | 8 && large.data.len() < 1000, "compressed by pylibmc");
            assert_eq!(client.increment("theirs/counter", 2).await.unwrap(), Some(42));
        }
    }
}

#[tokio::test]
async fn php_and_this_client_read_each_others_values() {
    // The flags of PHP's Memcached: the type in the lowest four bits (1 integer, 3 boolean), and those of the
    // user in the upper sixteen.
    for ours in PROTOCOLS {
        for theirs in ["binary", "text"] {
            let server = Memcached::start(Kind::Plain);
            let client = server.client(ours);
            let entries: [(&str, &[u8], u32); 6] = [
                ("text", "Grüße".as_bytes(), 0),
                ("bytes", b"\x00\xff", 0),
                ("number", b"42", 1),
                ("true", b"1", 3),
                ("empty", b"", 0),
                ("flags", b"text", 7 << 16),
            ];
            store(&client, &entries).await;
            let address = server.address().to_string();
            let (host, port) = address.rsplit_once(':').unwrap();
            run("php", &[], "client.php", &[host, port, theirs]);
            let theirs: [(&str, &[u8], u32); 4] = [
                ("text", "Grüße".as_bytes(), 0),
                ("number", b"42", 1),
                ("true", b"1", 3),
                ("flags", b"text", 7 << 16),
            ];
            assert_found(&client, &theirs).await;
        }
    }
}

#[tokio::test]
async fn gomemcache_and_this_client_read_each_others_values() {
    for ours in PROTOCOLS {
        let server = Memcached::start(Kind::Plain);
        let client = server.client(ours);
        let entries: [(&str, &[u8], u32); 3] = [
            ("text", "Grüße".as_bytes(), 5),
            ("bytes", b"\x00\xff\r\n", 0xf7ff_ffff),
            ("empty", b"", 0),
        ];
        store(&client, &entries).await;
        run("go", &["run"], "gomemcache.go", &[&server.address().to_string()]);
        assert_found(&client, &entries).await;
        let swapped = client.get("ours/text").await.unwrap().unwrap();
        assert_eq!((&swapped.data[..], swapped.flags), (&b"swapped"[..], 5));
    }
}
