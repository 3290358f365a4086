//! What the log says of failures: an outage fails a thousand watches, and is one line.

use std::fmt;

/// Watches that began to fail or stopped to, since the last time they were told of.
#[derive(Debug, Default)]
pub(super) struct News {
    failed: Option<Failed>,
    recovered: Option<Recovered>,
}

/// Watches that fail, or fail otherwise than before.
#[derive(Debug)]
pub(super) struct Failed {
    first: String,
    others: usize,
}

/// Watches that work again.
#[derive(Debug)]
pub(super) struct Recovered {
    first: String,
    others: usize,
}

impl News {
    /// Notes that the error of a watch is another: none any more, or this one.
    pub(super) fn note(&mut self, watch: &str, error: Option<&str>) {
        match (error, &mut self.failed, &mut self.recovered) {
            (Some(_), Some(failed), _) => failed.others += 1,
            (Some(error), none, _) => {
                let first = error.to_owned();
                *none = Some(Failed { first, others: 0 });
            }
            (None, _, Some(recovered)) => recovered.others += 1,
            (None, _, none) => {
                let first = watch.to_owned();
                *none = Some(Recovered { first, others: 0 });
            }
        }
    }

    /// Whether there is anything to tell.
    pub(super) fn any(&self) -> bool {
        self.failed.is_some() || self.recovered.is_some()
    }

    /// What there is to tell; from then on there is nothing.
    pub(super) fn take(&mut self) -> (Option<Failed>, Option<Recovered>) {
        (self.failed.take(), self.recovered.take())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first)?;
        match self.others {
            0 => Ok(()),
            others => write!(f, " (and {others} more such reports)"),
        }
    }
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consul answers again for `{}`", self.first)?;
        match self.others {
            0 => Ok(()),
            others => write!(f, " and {others} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_one_line_and_so_is_its_end() {
        let mut news = News::default();
        assert!(!news.any());
        news.note("a", Some("refused a"));
        assert!(news.any());
        for _ in 0..999 {
            news.note("b", Some("refused b"));
        }
        news.note("c", None);
        let (failed, recovered) = news.take();
        assert_eq!(
            failed.unwrap().to_string(),
            "refused a (and 999 more such reports)"
        );
        assert_eq!(
            recovered.unwrap().to_string(),
            "Consul answers again for `c`"
        );
        assert!(!news.any());

        news.note("a", None);
        news.note("b", None);
        let (failed, recovered) = news.take();
        assert!(failed.is_none());
        assert_eq!(
            recovered.unwrap().to_string(),
            "Consul answers again for `a` and 1 more"
        );
    }
}
