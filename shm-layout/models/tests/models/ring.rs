use loom::thread;
use shm_models::limits::RING_FRAME_MAX;
use shm_models::ring::{RecordKind, Ring};
use shm_models::segment::Mapping;
use shm_models::sync::own;

/// Four granules: two records fit, so that the third lies where the first lay.
const BYTES: usize = 4 * 64;

#[test]
fn records_come_whole_and_in_order() {
    crate::explore(4, || {
        let ring = Ring::at(&Mapping::anonymous(0, false).unwrap(), 0, BYTES).unwrap();
        let producer = ring.clone();
        let producer = thread::spawn(move || {
            own();
            (1..=3_u32).filter(|n| producer.push(RecordKind::Redirect, [*n; 5], &u64::from(*n).to_le_bytes())).collect()
        });
        own();
        let mut into: Box<[u8; RING_FRAME_MAX]> = vec![0; RING_FRAME_MAX].try_into().unwrap();
        let mut pop = || {
            ring.pop(&mut into).map(|(kind, args, len)| {
                assert_eq!((kind, len), (RecordKind::Redirect, 8), "a record that was not pushed");
                let number = args[0];
                assert_eq!((args, &into[..8]), ([number; 5], &u64::from(number).to_le_bytes()[..]), "half a record");
                number
            })
        };
        let mut popped: Vec<u32> = (0..3).filter_map(|_| pop()).collect();
        let pushed: Vec<u32> = producer.join().unwrap();
        popped.extend((0..3).filter_map(|_| pop()));
        assert_eq!(popped, pushed, "lost, doubled or out of order");
    });
}
