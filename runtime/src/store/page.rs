//! Cursor pagination: lists are read newest first, a page at a time.

use uuid::Uuid;

/// Which part of a list to read.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Most items, at least 1.
    pub limit: u32,
    /// Only items after this one.
    pub after: Option<Uuid>,
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins, if there is one.
    pub next: Option<Uuid>,
}

impl PageRequest {
    /// How many rows to read: one more than asked for tells whether there is a next page.
    pub(super) fn rows(self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// An id larger than any that may be on the page.
    pub(super) fn before_id(self) -> Uuid {
        self.after.unwrap_or(Uuid::max())
    }

    pub(super) fn page<T>(self, mut items: Vec<T>, id: impl Fn(&T) -> Uuid) -> Page<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(id);
        Page { items, next }
    }
}
