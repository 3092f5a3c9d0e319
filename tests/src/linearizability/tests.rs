//! Histories of a register and of a counter whose verdict is known.

use super::*;

/// Register with compare-and-set.
struct Register;

#[derive(Debug, Clone)]
enum Call {
    Read,
    Write(u32),
    Swap(u32, u32),
}

#[derive(Debug, Clone)]
enum Reply {
    Value(u32),
    Done,
    Failed,
}

impl Model for Register {
    type State = u32;
    type Call = Call;
    type Reply = Reply;

    fn step(state: &u32, call: &Call, reply: Option<&Reply>) -> Option<u32> {
        let (next, matches) = match (call, reply) {
            (Call::Read, Some(Reply::Value(value))) => (*state, value == state),
            (Call::Read, None) => (*state, true),
            (Call::Write(value), Some(Reply::Done) | None) => (*value, true),
            (Call::Swap(from, to), None) => (if from == state { *to } else { *state }, true),
            (Call::Swap(from, to), Some(Reply::Done)) => (*to, from == state),
            (Call::Swap(from, _), Some(Reply::Failed)) => (*state, from != state),
            _ => (*state, false),
        };
        matches.then_some(next)
    }
}

/// Operation called and answered at these times; 0: unanswered.
fn operation(called_at: u64, replied_at: u64, call: Call, reply: Reply) -> Operation<Call, Reply> {
    let is_answered = replied_at > 0;
    Operation { call, reply: is_answered.then_some(reply), called_at, replied_at: is_answered.then_some(replied_at) }
}

fn read(called_at: u64, replied_at: u64, value: u32) -> Operation<Call, Reply> {
    operation(called_at, replied_at, Call::Read, Reply::Value(value))
}

fn write(called_at: u64, replied_at: u64, value: u32) -> Operation<Call, Reply> {
    operation(called_at, replied_at, Call::Write(value), Reply::Done)
}

fn swap(called_at: u64, replied_at: u64, from: u32, to: u32, reply: Reply) -> Operation<Call, Reply> {
    operation(called_at, replied_at, Call::Swap(from, to), reply)
}

#[test]
fn linearizable_histories_are_accepted() {
    for (name, history) in [
        ("nothing", vec![]),
        ("one after the other", vec![write(1, 2, 7), read(3, 4, 7), write(5, 6, 8), read(7, 8, 8)]),
        ("a read beside a write sees the old value", vec![write(1, 4, 7), read(2, 3, 0)]),
        ("or the new value", vec![write(1, 4, 7), read(2, 3, 7)]),
        ("two writes at once, in either order", vec![write(1, 9, 1), write(2, 10, 2), read(3, 4, 2), read(5, 6, 1)]),
        ("an unanswered write is seen at once", vec![write(1, 0, 7), read(2, 3, 7)]),
        ("or late", vec![write(1, 0, 7), read(2, 3, 0), read(4, 5, 0), read(6, 7, 7)]),
        ("or never", vec![write(1, 0, 7), read(2, 3, 0), write(4, 5, 8), read(6, 7, 8)]),
        ("or after a later write", vec![write(1, 0, 7), write(2, 3, 8), read(4, 5, 8), read(6, 7, 7)]),
        ("one of two swaps wins", vec![swap(1, 5, 0, 1, Reply::Done), swap(2, 6, 0, 2, Reply::Failed), read(7, 8, 1)]),
        ("a swap needs backtracking", vec![write(1, 9, 5), swap(2, 8, 0, 3, Reply::Done), read(3, 4, 3), read(10, 11, 5)]),
    ] {
        assert!(check::<Register>(&history).is_ok(), "{name}");
    }
}

#[test]
fn impossible_histories_are_rejected() {
    for (name, history) in [
        ("a value that was never written", vec![write(1, 2, 7), read(3, 4, 8)]),
        ("a stale read", vec![write(1, 2, 7), write(3, 4, 8), read(5, 6, 7)]),
        ("a lost write", vec![write(1, 2, 7), read(3, 4, 0)]),
        ("a read that goes back", vec![write(1, 9, 7), read(2, 3, 7), read(4, 5, 0)]),
        ("two reads that disagree on the order", vec![write(1, 9, 1), write(2, 10, 2), read(3, 4, 2), read(5, 6, 1), read(7, 8, 2)]),
        ("an unanswered write that is seen twice", vec![write(1, 0, 7), read(2, 3, 7), write(4, 5, 8), read(6, 7, 7)]),
        ("a write before its call", vec![read(1, 2, 7), write(3, 4, 7)]),
        ("two swaps that both win", vec![swap(1, 5, 0, 1, Reply::Done), swap(2, 6, 0, 2, Reply::Done)]),
        ("a swap that failed without a reason", vec![swap(1, 2, 0, 1, Reply::Failed)]),
    ] {
        let error = check::<Register>(&history).expect_err(name);
        assert!(error.to_string().starts_with("not linearizable"), "{name}: {error}");
    }
}

#[test]
fn failure_names_the_impossible_operation() {
    let error = check::<Register>(&[write(1, 2, 7), read(3, 4, 7), read(5, 6, 9)]).expect_err("9 was never written").to_string();
    assert!(error.contains("[3, 4] Read -> Some(Value(7))\nlead to 7"), "{error}");
    assert!(error.ends_with("[5, 6] Read -> Some(Value(9))"), "{error}");
}

/// Any execution of a real register is linearizable, and most of them are not if one value is
/// changed: none may be accepted whose changed read has a value that was never written.
#[test]
fn recorded_executions_are_decided() {
    for seed in 0..30 {
        let mut random = crate::random::Random::new(seed);
        let history = History::<Register>::default();
        let mut value = 0;
        for written in 1..20 {
            // Four clients call at once, take effect in some order, and get their replies.
            let mut pending: Vec<_> = (0..4)
                .map(|client| {
                    let call = if random.choose_index(0..2) == 0 { Call::Read } else { Call::Write(written * 10 + client) };
                    (history.call(call.clone()), call)
                })
                .collect();
            while !pending.is_empty() {
                let index = random.choose_index(0..pending.len() as u64);
                let (pending, call) = pending.swap_remove(usize::try_from(index).unwrap());
                match call {
                    // One of ten gets no reply, and half of these take no effect.
                    Call::Write(_) if random.choose_index(0..20) == 0 => {}
                    Call::Write(written) => {
                        value = written;
                        if random.choose_index(0..20) > 0 {
                            pending.reply(Reply::Done);
                        }
                    }
                    _ => pending.reply(Reply::Value(value)),
                }
            }
        }
        let mut operations = history.operations();
        check::<Register>(&operations).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let changed = operations.iter_mut().rfind(|operation| matches!(operation.reply, Some(Reply::Value(_)))).expect("a read");
        changed.reply = Some(Reply::Value(7));
        assert!(check::<Register>(&operations).is_err(), "seed {seed}");
    }
}
