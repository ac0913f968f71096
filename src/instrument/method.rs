//! Request methods as a closed set: a client that invents methods adds no series.

/// A method's place among the known ones; the last stands for all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method(u8);

const NAMES: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "_OTHER",
];

/// Known methods and the place of the rest.
pub(crate) const COUNT: usize = NAMES.len();

impl Method {
    #[cfg(test)]
    pub(crate) const GET: Self = Self(0);

    pub(crate) fn of(name: &str) -> Self {
        let other = COUNT - 1;
        let place = NAMES
            .iter()
            .take(other)
            .position(|known| *known == name)
            .unwrap_or(other);
        Self(u8::try_from(place).unwrap_or(0))
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES.get(self.place()).copied().unwrap_or("_OTHER")
    }

    pub(crate) fn place(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn is_head(self) -> bool {
        self.name() == "HEAD"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_methods_share_one_name() {
        assert_eq!(Method::of("PATCH").name(), "PATCH");
        assert_eq!(Method::of("BREW").name(), "_OTHER");
        assert_eq!(Method::of("_OTHER"), Method::of("get"));
    }
}
