//! Field selection: `fields=id,title` sends these and no others.
//!
//! Guide 5.3. Metric: `http_server_response_body_size_bytes`. Breaking test:
//! `an_unknown_or_internal_field_is_refused`. A row names its selectable fields; what is not on
//! the list (lease, archive state) has no name to ask for.

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::problem::Problem;

/// A row whose fields can be chosen.
pub(super) trait Selectable {
    /// Names in the order of the answer, at most 32.
    const FIELDS: &'static [&'static str];

    /// Writes the field at this place of [`FIELDS`](Self::FIELDS).
    fn write<M: serde::ser::SerializeMap>(&self, place: usize, map: &mut M)
    -> Result<(), M::Error>;
}

/// Chosen fields as bits by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FieldSet(u32);

impl FieldSet {
    /// All fields.
    pub(super) const ALL: Self = Self(u32::MAX);

    /// The fields a client asked for; all of them when he did not.
    ///
    /// # Errors
    /// [`Problem::UnknownField`] for a name that the row does not have, the empty one included.
    pub(super) fn parse<T: Selectable>(text: Option<&str>) -> Result<Self, Problem> {
        let Some(text) = text else {
            return Ok(Self::ALL);
        };
        let mut bits = 0;
        for name in text.split(',') {
            match T::FIELDS.iter().position(|field| *field == name) {
                Some(place) => bits |= 1 << place,
                None => {
                    let field = name.chars().take(32).collect();
                    return Err(Problem::UnknownField {
                        field,
                        known: T::FIELDS,
                    });
                }
            }
        }
        Ok(Self(bits))
    }

    /// The bits, for keys and tags: the order of the names in the request does not matter.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// The chosen places of a row's fields, in order.
    pub(super) fn places(self, fields: &[&str]) -> impl Iterator<Item = usize> {
        let bit = |place| {
            u32::try_from(place)
                .ok()
                .and_then(|place| 1_u32.checked_shl(place))
        };
        (0..fields.len()).filter(move |place| bit(*place).is_some_and(|bit| self.0 & bit != 0))
    }
}

/// A row seen through a selection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selected<'a, T> {
    pub(super) row: &'a T,
    pub(super) fields: FieldSet,
}

impl<T: Selectable> Serialize for Selected<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for place in self.fields.places(T::FIELDS) {
            self.row.write(place, &mut map)?;
        }
        map.end()
    }
}

/// Lists the selectable fields of a row type.
macro_rules! selectable {
    ($row:ty { $($field:ident),* $(,)? }) => {
        impl $crate::api::fields::Selectable for $row {
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];

            fn write<M: serde::ser::SerializeMap>(
                &self,
                place: usize,
                map: &mut M,
            ) -> Result<(), M::Error> {
                let mut at = 0;
                $(
                    if at == place {
                        return map.serialize_entry(stringify!($field), &self.$field);
                    }
                    at += 1;
                )*
                debug_assert!(place < at, "{place} is no field");
                Ok(())
            }
        }
    };
}

pub(super) use selectable;

#[cfg(test)]
mod tests {
    use super::*;

    struct Row {
        id: u32,
        title: &'static str,
        lease_owner: &'static str,
    }

    selectable!(Row { id, title });

    const ROW: Row = Row {
        id: 1,
        title: "t",
        lease_owner: "internal",
    };

    fn select(text: Option<&str>) -> String {
        let fields = FieldSet::parse::<Row>(text).unwrap();
        serde_json::to_string(&Selected { row: &ROW, fields }).unwrap()
    }

    #[test]
    fn only_the_chosen_fields_are_sent_in_the_order_of_the_row() {
        assert_eq!(select(None), r#"{"id":1,"title":"t"}"#);
        assert_eq!(select(Some("title")), r#"{"title":"t"}"#);
        assert_eq!(select(Some("title,id")), r#"{"id":1,"title":"t"}"#);
    }

    #[test]
    fn an_unknown_or_internal_field_is_refused() {
        assert!(!ROW.lease_owner.is_empty());
        for text in ["lease_owner", "", "id,", "ID", "id, title"] {
            assert!(FieldSet::parse::<Row>(Some(text)).is_err(), "{text:?}");
        }
    }
}
