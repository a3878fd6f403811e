use super::*;

#[test]
fn anonymous_memory_is_zeroed_and_writable() {
    for len in [0, 1, 1000, (4 << 20) / 8] {
        let mut array = HugeArray::<u64>::anonymous(len).unwrap();
        assert_eq!(array.len(), len);
        assert!(array.iter().all(|&number| number == 0));
        array.prefault().unwrap();
        array.fill(7);
        assert!(array.iter().all(|&number| number == 7));
        assert!(!array.adopted());
        for index in [0, len, usize::MAX] {
            array.prefetch(index);
        }
    }
}

#[test]
fn absurd_size_is_an_error() {
    let error = HugeArray::<u64>::anonymous(usize::MAX / 4).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfMemory);
}

#[test]
fn file_is_adopted_with_its_contents() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("entries");
    let mut first = HugeArray::<u32>::file(&path, 5000).unwrap();
    assert!(!first.adopted() && !first.is_huge());
    assert!(first.iter().all(|&number| number == 0));
    first.prefault().unwrap();
    for (number, slot) in (0..).zip(first.iter_mut()) {
        *slot = number;
    }
    drop(first);
    let second = HugeArray::<u32>::file(&path, 5000).unwrap();
    assert!(second.adopted());
    assert!(second.iter().copied().eq(0..5000));
}

#[test]
fn file_of_another_size_starts_from_zero() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("entries");
    HugeArray::<u32>::file(&path, 5000).unwrap().fill(1);
    let larger = HugeArray::<u32>::file(&path, 50_000).unwrap();
    assert!(!larger.adopted());
    assert!(larger.iter().all(|&number| number == 0));
    drop(larger);
    let smaller = HugeArray::<u32>::file(&path, 10).unwrap();
    assert!(!smaller.adopted());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096);
}

#[test]
fn file_has_one_owner() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = folder.path().join("entries");
    let _owner = HugeArray::<u32>::file(&path, 10).unwrap();
    let error = HugeArray::<u32>::file(&path, 10).unwrap_err();
    assert_eq!(error.kind, ErrorKind::FileInUse);
    assert!(error.to_string().contains("entries"), "{error}");
}

#[test]
fn full_file_system_is_an_error_not_a_signal() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let error = HugeArray::<u8>::file(&folder.path().join("entries"), 1 << 45).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfMemory, "{error}");
}

#[test]
fn array_moves_between_threads() {
    let mut array = HugeArray::<u16>::anonymous(10).unwrap();
    let array = std::thread::spawn(move || {
        array[9] = 9;
        array
    });
    assert_eq!(array.join().unwrap()[9], 9);
}
