//! The operations of a world, on threads.

use gmflow_world::{BUCKET, Counts, Error, Exchange, Sums, Threads, World, share, threads};
use std::time::{Duration, Instant};

/// Runs `work` on every rank and returns what each gives.
fn on_all<T: Send>(size: usize, work: impl Fn(Threads) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let started: Vec<_> = threads(size, None).into_iter().map(|world| scope.spawn(|| work(world))).collect();
        started.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// Numbers of very different sizes, so that another order of sums gives other bits.
fn numbers(rank: usize, count: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(rank as u64 + 1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * 10f32.powi((next() * 6.0) as i32)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn sums_are_those_of_a_loop_over_the_ranks() {
    for (size, count) in [(1, 7), (2, 1), (2, 1000), (3, 1000), (4, 3), (5, 4099), (2, BUCKET + 5)] {
        let mut expected = numbers(0, count);
        for rank in 1..size {
            expected.iter_mut().zip(numbers(rank, count)).for_each(|(sum, value)| *sum += value);
        }
        let sums = on_all(size, |world| {
            let mut values = numbers(world.rank(), count);
            Sums::default().sum(&world, &mut values).unwrap();
            values
        });
        for sum in sums {
            assert!(bits(&sum) == bits(&expected), "{size} ranks, {count} numbers");
        }
    }
}

#[test]
fn another_order_would_give_other_bits() {
    let [a, b, c] = [0, 1, 2].map(|rank| numbers(rank, 1000));
    let differs = (0..1000).filter(|&i| (a[i] + b[i]) + c[i] != a[i] + (b[i] + c[i])).count();
    assert!(differs > 20, "the numbers of these tests tell orders apart: {differs}");
}

#[test]
fn what_is_empty_on_one_rank_can_be_filled_with_minus_zero() {
    let sums = on_all(3, |world| {
        let mut values = if world.rank() == 1 { vec![-0.0; 3] } else { vec![-0.0, 0.0, 2.0] };
        Sums::default().sum(&world, &mut values).unwrap();
        bits(&values)
    });
    assert!(sums.iter().all(|sum| *sum == bits(&[-0.0, 0.0, 4.0])), "{sums:?}");
}

#[test]
fn an_exchange_in_bf16_rounds_what_travels_and_nothing_else() {
    let round = |value: f32| half::bf16::from_f32(value).to_f32();
    let count = 1000;
    let mut expected: Vec<f32> = numbers(0, count).into_iter().map(round).collect();
    for rank in 1..3 {
        expected.iter_mut().zip(numbers(rank, count)).for_each(|(sum, value)| *sum += round(value));
    }
    let expected: Vec<f32> = expected.into_iter().map(round).collect();
    let sums = on_all(3, |world| {
        let mut values = numbers(world.rank(), count);
        Sums::new(Exchange::Bf16).sum(&world, &mut values).unwrap();
        values
    });
    assert!(sums.iter().all(|sum| bits(sum) == bits(&expected)));
}

#[test]
fn every_rank_can_have_the_sums_of_its_own_block() {
    let blocks = [0..10, 10..11, 11..40];
    let sums = on_all(3, |world| Sums::default().own(&world, &numbers(world.rank(), 40), &blocks).unwrap().to_vec());
    let mut whole = numbers(0, 40);
    for rank in 1..3 {
        whole.iter_mut().zip(numbers(rank, 40)).for_each(|(sum, value)| *sum += value);
    }
    assert_eq!(bits(&sums.concat()), bits(&whole));
    assert_eq!(sums.iter().map(Vec::len).collect::<Vec<_>>(), [10, 1, 29]);
}

#[test]
fn messages_of_any_length_are_gathered_in_order() {
    for length in [0, 5, 119, 120, 121, 10_000] {
        let message = |rank: usize| vec![rank as u8; if rank == 1 { length } else { 3 }];
        let expected: Vec<Vec<u8>> = (0..3).map(message).collect();
        let gathered = on_all(3, |world| world.gather(&message(world.rank())).unwrap());
        assert!(gathered.iter().all(|parts| *parts == expected), "{length}");
        let collected = on_all(3, |world| world.collect(&message(world.rank())).unwrap());
        assert_eq!(collected, [Some(expected), None, None]);
    }
}

#[test]
fn rank_0_is_heard_by_all_and_a_flag_of_one_is_seen_by_all() {
    let heard = on_all(3, |world| {
        let mut bytes = if world.rank() == 0 { b"configuration".to_vec() } else { b"?".to_vec() };
        world.broadcast(&mut bytes).unwrap();
        world.barrier().unwrap();
        (bytes, world.any(world.rank() == 2).unwrap(), world.any(false).unwrap())
    });
    assert!(heard.iter().all(|heard| *heard == (b"configuration".to_vec(), true, false)));
}

#[test]
fn a_rank_that_has_ended_is_noticed_at_once() {
    let begun = Instant::now();
    let outcomes = on_all(3, |world| if world.rank() == 1 { None } else { Some(world.barrier()) });
    assert_eq!(outcomes, [Some(Err(Error::Gone { rank: 1 })), None, Some(Err(Error::Gone { rank: 1 }))]);
    assert!(begun.elapsed() < Duration::from_secs(60), "it does not wait for the timeout");
}

#[test]
fn a_rank_that_hangs_is_noticed_in_time() {
    let mut ranks = threads(2, Some(Duration::from_millis(100)));
    let _hangs = ranks.pop();
    let outcome = ranks[0].barrier();
    assert_eq!(outcome, Err(Error::Timeout { operation: "barrier", seconds: 0 }));
}

#[test]
fn ranks_at_different_points_of_the_program_are_noticed() {
    let outcomes = on_all(2, |world| if world.rank() == 0 { world.barrier() } else { world.any(true).map(|_| ()) });
    assert!(matches!(outcomes[0], Err(Error::OutOfStep { got: "barrier", rank: 1, other: "all-gather" })));
    assert!(matches!(outcomes[1], Err(Error::OutOfStep { .. })));
}

#[test]
fn counts_that_do_not_fit_are_refused() {
    let world = threads(1, None).remove(0);
    let error = world.all_gather(&[1], &[2], &mut [0; 3]).unwrap_err().to_string();
    assert!(error.contains("add up to 3"), "{error}");
    let counts = Counts { send: &[1, 1], receive: &[2] };
    assert!(world.all_to_all(&[1, 2], counts, &mut [0; 2]).is_err());
    assert_eq!(share(5, 0, 1), 0..5);
}
