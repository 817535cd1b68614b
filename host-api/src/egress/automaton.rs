//! Secrets as an automaton: all the ways in which one may be written, read side by side. It knows no bodies or headers.
//!
//! Its states are how much of each needle has been read, kept as bits, and a step reads one character, which may be
//! several bytes of text (`%2F`, `\u0026`, `&amp;`). Where a text can be read in two ways, both are followed. So the
//! time is that of the text, whatever stands in it.

use super::units::{Escape, UNIT_MAX_BYTES, escape, introduces};

/// States are kept for so many positions; more than the longest escape.
pub(super) const RING: usize = 32;
const _: () = assert!(UNIT_MAX_BYTES < RING);

/// Shorter values are not looked for in base64: too much would look like them.
const BASE64_MIN_BYTES: usize = 4;

/// What may stand at one place of a needle.
type Class = Vec<u8>;

/// A secret as it is. In forms a space is a plus.
fn plain(value: &[u8]) -> Vec<Class> {
    value.iter().map(|byte| if *byte == b' ' { vec![b' ', b'+'] } else { vec![*byte] }).collect()
}

/// A secret in base64, in both alphabets, `before` bytes after the beginning of a group of three. The characters at both
/// ends also depend on what stands beside it.
fn base64(value: &[u8], before: usize) -> Vec<Class> {
    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (first, last) = ((before * 8) / 6, ((before + value.len()) * 8).div_ceil(6));
    let known = |at: usize| {
        let byte = (at / 8).checked_sub(before).and_then(|index| value.get(index));
        byte.map(|byte| usize::from(byte >> (7 - at % 8) & 1))
    };
    let class = |character: usize| {
        let (mut bits, mut mask) = (0, 0);
        for bit in (0..6).map(|bit| known(character * 6 + bit)) {
            (bits, mask) = (bits << 1 | bit.unwrap_or(0), mask << 1 | usize::from(bit.is_some()));
        }
        let found = (0..64).filter(|index| index & mask == bits).flat_map(|index| match STANDARD[index] {
            b'+' => vec![b'+', b'-'],
            b'/' => vec![b'/', b'_'],
            letter => vec![letter],
        });
        found.collect()
    };
    (first..last).map(class).collect()
}

/// One way to write a secret: its bits are `first` (nothing read) to `end` (all read).
pub(super) struct Needle {
    pub(super) first: usize,
    pub(super) end: usize,
    /// What stands in its place.
    pub(super) instead: usize,
}

pub(super) struct Automaton {
    pub(super) needles: Vec<Needle>,
    pub(super) instead: Vec<String>,
    /// Words of a set of states.
    pub(super) width: usize,
    /// States in which nothing has been read, and those in which all has.
    pub(super) firsts: Vec<u64>,
    pub(super) ends: Vec<u64>,
    /// For each byte the row of those states that it leads on from.
    row_of: [Option<usize>; 256],
    rows: Vec<Vec<u64>>,
    /// Bytes at which a secret can begin.
    pub(super) begins: [bool; 256],
}

impl Automaton {
    pub(super) fn new<'s>(secrets: impl Iterator<Item = (&'s str, &'s str)>) -> Self {
        let (mut needles, mut instead, mut classes) = (Vec::new(), Vec::new(), Vec::<Class>::new());
        for (name, value) in secrets {
            let value = value.as_bytes();
            let base64s = (0..3).filter(|_| value.len() >= BASE64_MIN_BYTES).map(|before| base64(value, before));
            for needle in base64s.chain([plain(value)]) {
                let first = classes.len();
                needles.push(Needle { first, end: first + needle.len(), instead: instead.len() });
                classes.extend(needle);
                // From its end nothing leads on.
                classes.push(Class::new());
            }
            instead.push(format!("[secret {name}]"));
        }
        let width = classes.len().div_ceil(64);
        let set = |states: &mut dyn Iterator<Item = usize>| {
            let mut bits = vec![0_u64; width];
            states.for_each(|state| bits[state / 64] |= 1 << (state % 64));
            bits
        };
        let firsts = set(&mut needles.iter().map(|needle| needle.first));
        let ends = set(&mut needles.iter().map(|needle| needle.end));
        let (mut row_of, mut rows) = ([None::<usize>; 256], Vec::<Vec<u64>>::new());
        for (state, class) in classes.iter().enumerate() {
            for byte in class {
                let row = *row_of[usize::from(*byte)].get_or_insert_with(|| {
                    rows.push(vec![0; width]);
                    rows.len() - 1
                });
                rows[row][state / 64] |= 1 << (state % 64);
            }
        }
        let begins = std::array::from_fn(|byte| {
            let row: Option<usize> = row_of[byte];
            let starts = row.is_some_and(|row| rows[row].iter().zip(&firsts).any(|(a, b)| a & b != 0));
            u8::try_from(byte).is_ok_and(introduces) || starts
        });
        Self { needles, instead, width, firsts, ends, row_of, rows, begins }
    }

    pub(super) fn row(&self, byte: u8) -> Option<&[u64]> {
        self.row_of[usize::from(byte)].map(|row| self.rows[row].as_slice())
    }

    /// Where the earliest of the ways begins that lead to `states` at `places` of the text and after; `states` are used up.
    pub(super) fn beginning(&self, text: &[u8], base: usize, mut states: States, last: usize) -> Option<usize> {
        let (mut earliest, mut idle) = (None, 0);
        for at in (0..last).rev() {
            idle = if states.live[(base + at + 1) % RING] { 0 } else { idle + 1 };
            if idle > RING {
                break;
            }
            let here = (base + at) % RING;
            // What stood there is of a place too far behind, unless the way begins with it.
            if at + RING <= last {
                states.clear(here);
            }
            let escaped = match escape(&text[at..]) {
                Escape::Of(byte, bytes) => Some((byte, bytes)),
                Escape::None | Escape::Cut => None,
            };
            for (byte, bytes) in [Some((text[at], 1)), escaped].into_iter().flatten() {
                if let Some(row) = self.row(byte) {
                    states.back((base + at + bytes) % RING, here, row);
                }
            }
            if states.set(here).iter().zip(&self.firsts).any(|(a, b)| a & b != 0) {
                earliest = Some(at);
            }
        }
        earliest
    }
}

/// Sets of states, by place of the text.
#[derive(Clone)]
pub(super) struct States {
    width: usize,
    pub(super) bits: Vec<u64>,
    pub(super) live: [bool; RING],
}

impl States {
    pub(super) fn new(width: usize) -> Self {
        Self { width, bits: vec![0; width * RING], live: [false; RING] }
    }

    pub(super) fn set(&self, place: usize) -> &[u64] {
        &self.bits[place * self.width..][..self.width]
    }

    pub(super) fn clear(&mut self, place: usize) {
        if std::mem::take(&mut self.live[place]) {
            self.bits[place * self.width..][..self.width].fill(0);
        }
    }

    /// The states at `from`, and `firsts`, lead on by `row` to states at `to`.
    pub(super) fn step(&mut self, from: usize, to: usize, firsts: &[u64], row: &[u64]) {
        let (mut carry, mut any) = (0, 0);
        for word in 0..self.width {
            let moved = (self.bits[from * self.width + word] | firsts[word]) & row[word];
            let arrived = moved << 1 | carry;
            carry = moved >> 63;
            any |= arrived;
            self.bits[to * self.width + word] |= arrived;
        }
        self.live[to] |= any != 0;
    }

    /// States at `to` from which `row` leads to those at `from`.
    fn back(&mut self, from: usize, to: usize, row: &[u64]) {
        if !self.live[from] {
            return;
        }
        let (mut carry, mut any) = (0, 0);
        for word in (0..self.width).rev() {
            let there = self.bits[from * self.width + word];
            let arrived = (there >> 1 | carry) & row[word];
            carry = there << 63;
            any |= arrived;
            self.bits[to * self.width + word] |= arrived;
        }
        self.live[to] |= any != 0;
    }
}
