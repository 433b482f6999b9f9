//! Many callers at once.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use drivers::{Access, CreateOptions, ErrorKind, LayerRecord};
use tests::ops::Op::*;

use crate::bench::{each, id};

#[test]
fn whole_lives_run_side_by_side() {
    each("lives", |bench| {
        bench.layer("base", None, &[Dir("d", 0o755), File("d/f", "1")]);
        let driver = bench.driver();
        std::thread::scope(|scope| {
            for thread in 0..32 {
                scope.spawn(move || {
                    let (own, child) = (id(&format!("t{thread}")), id(&format!("c{thread}")));
                    let life = || -> Result<(), drivers::Error> {
                        driver.create(&own, Some(&id("base")), &CreateOptions::active())?;
                        let path = driver.mount(&own, Access::Default)?;
                        fs::write(path.join("d/f"), format!("{thread}")).unwrap();
                        driver.unmount(&own)?;
                        driver.commit(&own, &LayerRecord::default())?;
                        driver.create(&child, Some(&own), &CreateOptions::view())?;
                        let path = driver.mount(&child, Access::Default)?;
                        assert_eq!(
                            fs::read_to_string(path.join("d/f")).unwrap(),
                            format!("{thread}")
                        );
                        driver.unmount(&child)?;
                        driver.remove(&child)?;
                        driver.remove(&own)
                    };
                    life().unwrap_or_else(|error| panic!("thread {thread}: {error}"));
                });
            }
        });
        let left = bench.ok("list", driver.list());
        assert_eq!(left.len(), 1, "{}: {left:?}", bench.label);
        assert!(bench.check().is_empty(), "{}: {:?}", bench.label, bench.check());
    });
}

#[test]
fn one_layer_is_made_mounted_and_removed_by_one_of_many() {
    each("races", |bench| {
        bench.layer("base", None, &[File("f", "1")]);
        let driver = bench.driver();
        let (made, removed) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let (layer, base) = (id("common"), id("base"));
                    let fine = [ErrorKind::AlreadyExists, ErrorKind::NotFound, ErrorKind::InUse];
                    for _ in 0..10 {
                        let results = [
                            driver.create(&layer, Some(&base), &CreateOptions::active()).map(
                                |()| {
                                    made.fetch_add(1, Ordering::Relaxed);
                                },
                            ),
                            driver.mount(&layer, Access::Default).and_then(|path| {
                                // Held, so it cannot go away.
                                assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "1");
                                driver.unmount(&layer)
                            }),
                            driver.remove(&layer).map(|()| {
                                removed.fetch_add(1, Ordering::Relaxed);
                            }),
                        ];
                        for error in results.into_iter().filter_map(Result::err) {
                            assert!(fine.contains(&error.kind()), "{}: {error}", bench.label);
                        }
                    }
                });
            }
        });
        let left = driver.info(&id("common")).is_ok();
        let (made, removed) = (made.into_inner(), removed.into_inner());
        assert_eq!(made, removed + u32::from(left), "{}: made and removed", bench.label);
        assert!(bench.check().is_empty(), "{}: {:?}", bench.label, bench.check());
    });
}
