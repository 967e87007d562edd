//! Rebuild when a file that is embedded in the binary comes, goes or changes.

fn main() {
    for folder in ["migrations", "static", "templates"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
