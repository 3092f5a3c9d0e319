//! Search for a linearization: the algorithm of Wing and Gong (1993) with the memoization of Lowe
//! (2017).

use std::{collections::HashSet, fmt};

use super::{Model, Operation};

/// Maximum number of visited configurations. A history above it has too many concurrent calls.
const BUDGET: usize = 3_000_000;
/// Operations that a failure prints before the first that has no place.
const SHOWN: usize = 12;

/// Failure of [`check`].
#[derive(Debug)]
pub struct NotLinearizable {
    /// Explained operations, last one last, and operations that cannot follow.
    story: String,
    /// Whether the search ended without an answer.
    is_undecided: bool,
}

impl fmt::Display for NotLinearizable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_undecided { "undecided, too many concurrent calls" } else { "not linearizable" };
        write!(formatter, "{verdict}\n{}", self.story)
    }
}

impl std::error::Error for NotLinearizable {}

/// Set of the operations that have a place.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Vec<u64>);

impl Placed {
    fn new(operations: usize) -> Self {
        Self(vec![0; operations.div_ceil(64)])
    }

    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    fn flip(&mut self, index: usize) {
        self.0[index / 64] ^= 1 << (index % 64);
    }
}

/// Step of the search: the state, and the operations that may follow.
struct Step<S> {
    state: S,
    candidates: Vec<usize>,
    /// Operation that led here; `None` at the start.
    placed: Option<usize>,
}

/// Searches for an order of the operations that `M` explains and that respects their times. Returns
/// the number of visited configurations.
pub fn check<M: Model>(operations: &[Operation<M::Call, M::Reply>]) -> Result<usize, NotLinearizable> {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|operation| operation.called_at);
    let answered = operations.iter().filter(|operation| operation.replied_at.is_some()).count();
    let mut placed = Placed::new(operations.len());
    let mut visited = HashSet::new();
    let mut remaining = answered;
    let mut longest = Vec::new();
    let initial = M::State::default();
    let mut steps = vec![Step { candidates: candidates(&operations, &placed), state: initial, placed: None }];
    while let Some(step) = steps.last_mut() {
        if remaining == 0 {
            return Ok(visited.len());
        }
        let Some(next) = step.candidates.pop() else {
            if let Some(index) = steps.pop().and_then(|step| step.placed) {
                placed.flip(index);
                remaining += usize::from(operations[index].replied_at.is_some());
            }
            continue;
        };
        let operation = &operations[next];
        let Some(state) = M::step(&step.state, &operation.call, operation.reply.as_ref()) else { continue };
        // A call without reply and without effect needs no place.
        if operation.reply.is_none() && state == step.state {
            continue;
        }
        placed.flip(next);
        if !visited.insert((placed.clone(), state.clone())) {
            placed.flip(next);
            continue;
        }
        remaining -= usize::from(operation.replied_at.is_some());
        steps.push(Step { candidates: candidates(&operations, &placed), state, placed: Some(next) });
        if steps.len() > longest.len() {
            longest = steps.iter().filter_map(|step| step.placed).collect();
        }
        if visited.len() > BUDGET {
            return Err(NotLinearizable { story: story::<M>(&operations, &longest), is_undecided: true });
        }
    }
    Err(NotLinearizable { story: story::<M>(&operations, &longest), is_undecided: false })
}

/// Returns the operations that may come next: those called before the first reply that is left.
/// The last one is tried first: the earliest reply.
fn candidates<C, R>(operations: &[Operation<C, R>], placed: &Placed) -> Vec<usize> {
    let (mut found, mut first_reply) = (Vec::new(), u64::MAX);
    for (index, operation) in operations.iter().enumerate().filter(|(index, _)| !placed.contains(*index)) {
        if operation.called_at > first_reply {
            break;
        }
        first_reply = first_reply.min(operation.replied_at.unwrap_or(u64::MAX));
        found.push(index);
    }
    found.sort_by_key(|index| std::cmp::Reverse(operations[*index].replied_at.unwrap_or(u64::MAX)));
    found
}

fn story<M: Model>(operations: &[Operation<M::Call, M::Reply>], longest: &[usize]) -> String {
    let mut placed = Placed::new(operations.len());
    let mut state = M::State::default();
    let mut lines = Vec::new();
    let show = |operation: &Operation<M::Call, M::Reply>| {
        let end = operation.replied_at.map_or_else(|| "never".to_owned(), |end| end.to_string());
        format!("[{}, {end}] {:?} -> {:?}", operation.called_at, operation.call, operation.reply)
    };
    for index in longest {
        let operation = &operations[*index];
        placed.flip(*index);
        state = M::step(&state, &operation.call, operation.reply.as_ref()).unwrap_or(state);
        lines.push(format!("  {}", show(operation)));
    }
    let skipped = lines.len().saturating_sub(SHOWN);
    let next: Vec<_> = candidates(operations, &placed).into_iter().map(|index| format!("  {}", show(&operations[index]))).collect();
    format!(
        "{skipped} operations, then\n{}\nlead to {state:?}, which none of these explains:\n{}",
        lines[skipped..].join("\n"),
        next.join("\n")
    )
}
