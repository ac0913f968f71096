//! As much of what the host's values say as there is room for.

use std::fmt;

/// Takes no more of a text than so many bytes, however long the host's value makes it.
struct Bounded {
    text: String,
    bytes: usize,
}

/// As much of a value's text as so many bytes hold.
pub(super) fn bounded(bytes: usize, value: impl fmt::Display) -> String {
    let text = String::new();
    let mut bounded = Bounded { text, bytes };
    // An error says that it is full, or that the host's value cannot be shown: what there is stays.
    let _full = fmt::write(&mut bounded, format_args!("{value}"));
    bounded.text
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let free = self.bytes.saturating_sub(self.text.len());
        let floor = piece.floor_char_boundary(free);
        self.text.push_str(piece.get(..floor).unwrap_or_default());
        if piece.len() > free {
            return Err(fmt::Error);
        }
        Ok(())
    }
}
