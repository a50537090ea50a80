//! Work on rows, spread over threads. Each result depends on its row alone, so results do not depend on the number
//! of threads.

use std::num::NonZero;
use std::thread;

/// Fewer rows than this for each thread are not worth a thread.
const ROWS: usize = 4;

fn threads(rows: usize) -> usize {
    thread::available_parallelism().map_or(1, NonZero::get).min(rows / ROWS).max(1)
}

/// `f(0), .., f(n - 1)`.
pub fn map<T: Send>(n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = threads(n);
    if threads == 1 {
        return (0..n).map(f).collect();
    }
    let f = &f;
    thread::scope(|scope| {
        let part = |t: usize| t * n / threads;
        let spawn = |t| scope.spawn(move || (part(t)..part(t + 1)).map(f).collect::<Vec<T>>());
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        let mut all = Vec::with_capacity(n);
        for handle in handles {
            match handle.join() {
                Ok(rows) => all.extend(rows),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}

/// `f(first row, rows)` for runs of whole rows of `width` elements; what it does to a row must not depend on which
/// rows are in the run.
pub fn for_rows<T: Send>(data: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if width == 0 || data.is_empty() {
        return;
    }
    let rows = data.len() / width;
    let each = rows.div_ceil(threads(rows));
    if each == rows {
        return f(0, data);
    }
    let f = &f;
    thread::scope(|scope| {
        for (t, part) in data.chunks_mut(each * width).enumerate() {
            scope.spawn(move || f(t * each, part));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_once() {
        for n in [0, 1, 7, 8, 33] {
            assert_eq!(map(n, |i| 3 * i), (0..n).map(|i| 3 * i).collect::<Vec<_>>());
            let mut data = vec![0; 5 * n];
            for_rows(&mut data, 5, |first, rows| {
                for (r, row) in rows.chunks_mut(5).enumerate() {
                    row.iter_mut().for_each(|v| *v += first + r);
                }
            });
            assert!(data.iter().enumerate().all(|(i, v)| *v == i / 5));
        }
    }
}
