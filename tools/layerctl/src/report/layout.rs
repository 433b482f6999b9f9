//! Squarified treemaps: rectangles whose areas are in proportion to weights, as square as may be
//! (Bruls, Huizing, van Wijk: "Squarified Treemaps", 2000).

/// A rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Rect {
    /// The same without a border on each side and a heading at the top.
    pub(super) fn inside(self, border: f64, heading: f64) -> Self {
        Self {
            x: self.x + border,
            y: self.y + heading + border,
            width: (self.width - 2.0 * border).max(0.0),
            height: (self.height - heading - 2.0 * border).max(0.0),
        }
    }

    fn area(self) -> f64 {
        self.width * self.height
    }
}

/// Divides a rectangle among weights, which come in falling order; a weight of 0 gets nothing.
#[expect(clippy::cast_precision_loss, reason = "areas of a picture")]
pub(super) fn squarify(weights: &[u64], within: Rect) -> Vec<Rect> {
    let total: f64 = weights.iter().map(|weight| *weight as f64).sum();
    let mut rects = Vec::with_capacity(weights.len());
    if total <= 0.0 || within.area() <= 0.0 {
        rects.resize(weights.len(), Rect { width: 0.0, height: 0.0, ..within });
        return rects;
    }
    let scale = within.area() / total;
    let areas: Vec<f64> = weights.iter().map(|weight| *weight as f64 * scale).collect();
    let (mut rest, mut start) = (within, 0);
    while start < areas.len() {
        let side = rest.width.min(rest.height);
        let mut end = start + 1;
        let mut sum = areas[start];
        // A row takes one more while that makes its worst rectangle no worse.
        while end < areas.len() {
            let grown = sum + areas[end];
            if worst(&areas[start..=end], grown, side) > worst(&areas[start..end], sum, side) {
                break;
            }
            sum = grown;
            end += 1;
        }
        rest = place(&areas[start..end], sum, rest, &mut rects);
        start = end;
    }
    rects
}

/// The greatest ratio of sides in a row of areas along a side.
fn worst(row: &[f64], sum: f64, side: f64) -> f64 {
    let (first, last) = (row[0], row[row.len() - 1]);
    if last <= 0.0 || side <= 0.0 {
        return f64::INFINITY;
    }
    let square = side * side;
    (square * first / (sum * sum)).max(sum * sum / (square * last))
}

/// Places a row along the shorter side and gives what is left.
fn place(row: &[f64], sum: f64, rest: Rect, rects: &mut Vec<Rect>) -> Rect {
    let wide = rest.width >= rest.height;
    let side = if wide { rest.height } else { rest.width };
    let depth = if side > 0.0 { sum / side } else { 0.0 };
    let mut along = 0.0;
    for area in row {
        let length = if depth > 0.0 { area / depth } else { 0.0 };
        rects.push(match wide {
            true => Rect { x: rest.x, y: rest.y + along, width: depth, height: length },
            false => Rect { x: rest.x + along, y: rest.y, width: length, height: depth },
        });
        along += length;
    }
    match wide {
        true => Rect { x: rest.x + depth, width: (rest.width - depth).max(0.0), ..rest },
        false => Rect { y: rest.y + depth, height: (rest.height - depth).max(0.0), ..rest },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Rect = Rect { x: 3.0, y: 5.0, width: 600.0, height: 400.0 };
    /// What sums of many floats may be off by, in pixels.
    const SLACK: f64 = 1e-6;

    /// Weights as a tree of files has them, from a generator of its own so that they are the same
    /// each time.
    fn weights(count: usize, seed: u64) -> Vec<u64> {
        let mut state = seed;
        let mut weights: Vec<u64> = (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                1 + (state >> 33) % (1 << ((state >> 20) % 24))
            })
            .collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        weights
    }

    fn overlap(a: &Rect, b: &Rect) -> bool {
        let apart = |a: f64, a_len: f64, b: f64, b_len: f64| {
            a + a_len <= b + SLACK || b + b_len <= a + SLACK
        };
        !apart(a.x, a.width, b.x, b.width) && !apart(a.y, a.height, b.y, b.height)
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "areas of a picture")]
    fn areas_are_in_proportion_within_bounds_and_apart() {
        for (what, weights) in [
            ("one", vec![7]),
            ("equal ones", vec![1; 50]),
            ("the example of the paper", vec![6, 6, 4, 3, 2, 2, 1]),
            ("one giant", vec![1 << 40, 1, 1, 1]),
            ("a few", weights(12, 1)),
            ("many", weights(400, 2)),
        ] {
            let total: u64 = weights.iter().sum();
            let rects = squarify(&weights, WITHIN);
            assert_eq!(rects.len(), weights.len(), "{what}: one each");
            for (rect, weight) in rects.iter().zip(&weights) {
                let area = WITHIN.area() * *weight as f64 / total as f64;
                assert!((rect.area() - area).abs() < 0.01, "{what}: {rect:?} has not {area}");
                let inside = rect.x >= WITHIN.x - SLACK
                    && rect.y >= WITHIN.y - SLACK
                    && rect.x + rect.width <= WITHIN.x + WITHIN.width + SLACK
                    && rect.y + rect.height <= WITHIN.y + WITHIN.height + SLACK;
                assert!(inside, "{what}: {rect:?} leaves its place");
            }
            for (at, a) in rects.iter().enumerate() {
                let other = rects[at + 1..].iter().find(|b| overlap(a, b));
                assert_eq!(other, None, "{what}: {a:?} overlaps");
            }
        }
    }

    #[test]
    fn rectangles_are_nearly_square() {
        let rects = squarify(&[1; 24], WITHIN);
        for rect in rects {
            let ratio = rect.width / rect.height;
            assert!((0.5..2.0).contains(&ratio), "{rect:?}");
        }
    }

    #[test]
    fn what_has_no_weight_or_no_room_gets_nothing() {
        for (what, weights, within) in [
            ("no weights", vec![], WITHIN),
            ("weights of 0", vec![0, 0], WITHIN),
            ("no room", vec![2, 1], Rect { width: 0.0, ..WITHIN }),
            ("0 at the end", vec![2, 0, 0], WITHIN),
        ] {
            let rects = squarify(&weights, within);
            assert_eq!(rects.len(), weights.len(), "{what}");
            let area: f64 = rects.iter().skip(1).map(|rect| rect.area()).sum();
            assert!(area.abs() < SLACK, "{what}: {rects:?}");
            let finite = rects.iter().all(|rect| rect.width.is_finite() && rect.height.is_finite());
            assert!(finite, "{what}: {rects:?}");
        }
    }
}
