//! Points in time, in whole microseconds since the Unix epoch.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time in UTC with microsecond precision; databases hold it as an integer.
///
/// Its text is RFC 3339 with exactly six fraction digits and the offset `+00:00`, which every JSON client of the
/// original system parses (some of them do not know the suffix `Z`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the Unix epoch.
    #[must_use]
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// The latest time that has a text: in the year 9999.
    #[must_use]
    pub fn max() -> Self {
        Self(jiff::Timestamp::MAX.as_microsecond())
    }

    /// This time plus `duration`, capped at [`Timestamp::max`].
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))).min(Self::max())
    }

    /// This time minus `duration`, not before the Unix epoch.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)).max(0))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What no calendar has is the end of it, which can be read back.
        let time = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{}", time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(|time| Self(time.as_microsecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_six_digits_and_an_offset_and_reads_back() {
        let time = Timestamp::from_micros(1_700_000_000_000_001);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.000001+00:00");
        assert_eq!(time.to_string().parse::<Timestamp>().expect("parses"), time);
        assert_eq!("2023-11-14T23:13:20.000001+01:00".parse::<Timestamp>().expect("parses"), time);
    }

    #[test]
    fn every_time_can_be_read_back() {
        let ends = [Timestamp::max(), Timestamp::from_micros(0).plus(Duration::from_secs(u64::MAX))];
        for time in ends {
            assert_eq!(time.to_string().parse::<Timestamp>().expect("parses"), time);
        }
        let beyond = Timestamp::from_micros(i64::MAX).to_string();
        assert_eq!(beyond.parse::<Timestamp>().expect("parses"), Timestamp::max());
    }

    #[test]
    fn arithmetic_saturates() {
        let time = Timestamp::from_micros(10);
        assert_eq!(time.plus(Duration::MAX), Timestamp::max());
        assert_eq!(time.since(Timestamp::from_micros(20)), Duration::ZERO);
    }
}
