//! What a visitor remembers of earlier answers: tags of contents and the next page of lists.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use http::HeaderValue;

/// Contents whose tag is kept. With Zipf popularity the first 8192 seen cover most requests.
const TAGS: usize = 8192;
/// Lists that can be gone on with.
const PAGES: usize = 64;
/// Last page of a list that is asked for.
const DEEPEST: u8 = 5;

/// A page that follows a known one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Path and query of the first page.
    pub(crate) list: Rc<str>,
    /// Position given by the page before.
    pub(crate) cursor: String,
    /// 2 for the page after the first.
    pub(crate) number: u8,
}

/// Bounded memory over all visitors.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    tags: HashMap<u64, HeaderValue>,
    pages: VecDeque<Page>,
}

impl Memory {
    /// Tag of the content's last seen form.
    pub(crate) fn tag(&self, content: u64) -> Option<&HeaderValue> {
        self.tags.get(&content)
    }

    /// Hands the tag over to the one who is about to change the content, so that nobody else tries.
    pub(crate) fn take_tag(&mut self, content: u64) -> Option<HeaderValue> {
        self.tags.remove(&content)
    }

    /// Keeps the tag of a content just seen.
    pub(crate) fn saw_tag(&mut self, content: u64, tag: HeaderValue) {
        if self.tags.len() < TAGS || self.tags.contains_key(&content) {
            self.tags.insert(content, tag);
        }
    }

    /// A page to go on with.
    pub(crate) fn take_page(&mut self) -> Option<Page> {
        self.pages.pop_front()
    }

    /// Keeps the page after the one just seen; the oldest gives way.
    pub(crate) fn saw_page(&mut self, page: Page) {
        if page.number > DEEPEST {
            return;
        }
        if self.pages.len() >= PAGES {
            self.pages.pop_front();
        }
        self.pages.push_back(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_bounded_and_known_ones_still_renewed() {
        let mut memory = Memory::default();
        for content in 0..TAGS as u64 + 10 {
            memory.saw_tag(content, HeaderValue::from_static("\"1\""));
        }
        assert_eq!(memory.tags.len(), TAGS);
        memory.saw_tag(0, HeaderValue::from_static("\"2\""));
        assert_eq!(memory.tag(0).unwrap(), "\"2\"");
    }

    #[test]
    fn a_tag_taken_for_a_change_is_given_once() {
        let mut memory = Memory::default();
        memory.saw_tag(1, HeaderValue::from_static("\"1\""));
        assert!(memory.take_tag(1).is_some());
        assert!(memory.take_tag(1).is_none());
    }

    #[test]
    fn pages_are_bounded_in_number_and_depth() {
        let mut memory = Memory::default();
        let page = |number| Page {
            list: "/v1/content".into(),
            cursor: "c".to_owned(),
            number,
        };
        for _ in 0..PAGES + 10 {
            memory.saw_page(page(2));
        }
        assert_eq!(memory.pages.len(), PAGES);
        let mut memory = Memory::default();
        memory.saw_page(page(DEEPEST + 1));
        assert_eq!(memory.take_page(), None);
    }
}
