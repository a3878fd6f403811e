//! From single results to a verdict: so many in a row count, and only a change is told.

use super::check::Times;
use super::connect::Failure;

/// That a real server is up, or why it is down.
pub(super) type Verdict = Result<(), Failure>;

/// Counts results in a row.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// What was told last.
    told: Option<Verdict>,
    /// Results in a row that say otherwise.
    against: u32,
}

impl Judge {
    /// Takes one result; a verdict when there is news. The first result counts alone.
    pub(super) fn take(&mut self, result: Verdict, times: &Times) -> Option<Verdict> {
        let news = match (&self.told, &result) {
            (None, _) => true,
            (Some(told), result) if told.is_ok() == result.is_ok() => {
                self.against = 0;
                // Still down, for another reason: that is worth showing.
                told != result
            }
            (Some(_), result) => {
                self.against += 1;
                self.against >= if result.is_ok() { times.rise } else { times.fall }
            }
        };
        if news {
            self.against = 0;
            self.told = Some(result.clone());
        }
        news.then_some(result)
    }

    /// Whether the next check comes sooner: it is down, or may be.
    pub(super) fn is_hasty(&self) -> bool {
        self.against > 0 || self.told.as_ref().is_some_and(Result::is_err)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Times;
    use super::*;
    use crate::model::HealthSpec;

    fn times(rise: u32, fall: u32) -> Times {
        Times::of(&HealthSpec { rise: Some(rise), fall: Some(fall), ..HealthSpec::default() })
    }

    fn told(rise: u32, fall: u32, results: &str) -> String {
        let mut judge = Judge::default();
        let result = |c| match c {
            '+' => Ok(()),
            '-' => Err(Failure::Silent),
            _ => Err(Failure::NoMac),
        };
        results
            .chars()
            .map(|c| match judge.take(result(c), &times(rise, fall)) {
                None => '.',
                Some(Ok(())) => 'U',
                Some(Err(_)) => 'D',
            })
            .collect()
    }

    #[test]
    fn flip_is_told_once_after_enough_results_in_a_row() {
        assert_eq!(told(2, 3, "+--+---++-+++"), "U.....D.U....");
        assert_eq!(told(2, 1, "+--+-++"), "UD....U");
    }

    #[test]
    fn first_result_counts_alone() {
        assert_eq!(told(3, 3, "-+++"), "D..U");
        assert_eq!(told(3, 3, "+---"), "U..D");
    }

    #[test]
    fn another_reason_is_told() {
        assert_eq!(told(2, 1, "+--mm-"), "UD.D.D");
    }

    #[test]
    fn failing_checks_come_sooner() {
        let mut judge = Judge::default();
        judge.take(Ok(()), &times(2, 2));
        assert!(!judge.is_hasty());
        judge.take(Err(Failure::Silent), &times(2, 2));
        assert!(judge.is_hasty());
    }
}
