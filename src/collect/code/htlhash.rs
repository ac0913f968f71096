//! The digest of a file by which OpenTelemetry's profilers know it.
//!
//! Source: semantic conventions, `process.executable.build_id.htlhash`: SHA-256 over the first 4 KiB, the
//! last 4 KiB and the length as eight bytes, most significant first; of it the first 16 bytes in hexadecimal.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes that are read at either end.
const END: u64 = 4096;
/// Bytes of the digest that are kept.
const KEPT: usize = 16;

/// The digest, in lower-case hexadecimal; `None` if the file cannot be read.
///
/// Costs two reads of 4 KiB, whatever the size of the file.
pub(in crate::collect) fn of(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut digest = Sha256::new();
    for from in [0, length.saturating_sub(END)] {
        let mut piece = Vec::new();
        file.seek(SeekFrom::Start(from)).ok()?;
        (&mut file).take(END).read_to_end(&mut piece).ok()?;
        digest.update(piece);
    }
    digest.update(length.to_be_bytes());
    let digest = digest.finalize();
    let kept = digest.iter().take(KEPT);
    Some(kept.map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `(head -c 4096 F; tail -c 4096 F; printf %016x LENGTH | xxd -r -p) | sha256sum | head -c 32`.
    #[test]
    fn it_is_what_the_conventions_rule_gives_with_other_tools() {
        let folder = std::env::temp_dir().join(format!("htlhash-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let digest = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            of(&path).unwrap()
        };
        let long: Vec<u8> = (0..20_000_u32).map(|place| (place % 251) as u8).collect();
        assert_eq!(digest("long", &long), "c05fdb59695a730c8d4205abbe5f5e04");
        assert_eq!(digest("short", b"ELF"), "5eafd945c8b33bb61bec0f7d4340e534");
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(of(&folder), None);
    }
}
