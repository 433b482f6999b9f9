//! Layers applied apart from one another and stacked at commit, as the layers of one image are.

use std::path::Path;

use drivers::{ErrorKind, LayerRecord};
use tests::ops::Op::*;

use crate::bench::{each, id, kind, parent_record};
use crate::tars::Tar;

#[test]
fn layers_applied_apart_show_what_layers_applied_in_order_show() {
    each("rebase", |bench| {
        if !bench.driver().capabilities().rebase {
            bench.layer("1", None, &[]);
            bench.create("2", None);
            let got = kind(bench.driver().commit(&id("2"), &parent_record("1")));
            assert_eq!(got, Some(ErrorKind::InvalidArgument), "{}", bench.label);
            return;
        }
        let tars = [
            Tar::new()
                .dir("opt", 0o711, (7, 8))
                .dir("opt/sub", 0o700, (9, 9))
                .file("opt/sub/one", "1")
                .dir("gone", 0o755, (0, 0))
                .file("gone/file", "x")
                .file("keep", "1")
                .end(),
            // Takes "opt" and "opt/sub" for granted.
            Tar::new().file("opt/sub/two", "2").file(".wh.gone", "").end(),
            Tar::new()
                .file("opt/sub/three", "3")
                .file("opt/.wh.nothing", "")
                .file("gone", "file")
                .end(),
            Tar::new().dir("opt/sub", 0o750, (1, 1)).file("opt/sub/.wh..wh..opq", "").end(),
        ];
        for (at, tar) in tars.iter().enumerate() {
            let below = at.checked_sub(1).map(|below| format!("ordered{below}"));
            bench.create(&format!("ordered{at}"), below.as_deref());
            bench.apply(&format!("ordered{at}"), tar);
            bench.commit(&format!("ordered{at}"));
            bench.create(&format!("apart{at}"), None);
        }
        // In any order, and the process may die in between.
        for at in [2, 0, 3, 1] {
            bench.apply(&format!("apart{at}"), &tars[at]);
        }
        bench.reopen();
        let batch: Vec<_> = (0..tars.len())
            .map(|at| {
                let record = match at {
                    0 => LayerRecord::default(),
                    _ => parent_record(&format!("apart{}", at - 1)),
                };
                (id(&format!("apart{at}")), record)
            })
            .collect();
        let infos = bench.ok("commit", bench.driver().commit_many(&batch));
        assert_eq!(infos.len(), tars.len(), "{}", bench.label);
        for at in 0..tars.len() {
            let (apart, ordered) = (format!("apart{at}"), format!("ordered{at}"));
            bench.same(&apart, &bench.portrait(&apart), &bench.portrait(&ordered));
            assert_eq!(
                bench.changes(&apart, None),
                bench.changes(&ordered, None),
                "{}",
                bench.label
            );
        }
        bench.reopen();
        assert_eq!(kind(bench.driver().remove(&id("apart0"))), Some(ErrorKind::InUse));
        assert!(bench.check().is_empty(), "{}: {:?}", bench.label, bench.check());
    });
}

#[test]
fn a_link_out_of_the_layer_asks_for_the_layers_below() {
    each("needs lower", |bench| {
        if !bench.driver().capabilities().rebase {
            return;
        }
        let tar = Tar::new().link("copy", "f").end();
        bench.layer("1", None, &[File("f", "1")]);
        bench.create("apart", None);
        let error = bench.driver().apply(&id("apart"), &mut &tar[..]).unwrap_err();
        assert!(error.needs_lower(), "{}: {error}", bench.label);
        bench.remove("apart");
        bench.create("on", Some("1"));
        bench.apply("on", &tar);
        bench.commit("on");
        let shown = bench.portrait("on");
        assert!(shown.contains_key(Path::new("copy")), "{}: {shown:?}", bench.label);
    });
}

#[test]
fn a_batch_is_committed_together() {
    each("batch", |bench| {
        bench.active("1", None, &[File("f", "1")]);
        bench.active("x", None, &[File("f", "1")]);
        let batch = [(id("1"), LayerRecord::default()), (id("x"), LayerRecord::default())];
        let infos = bench.ok("commit", bench.driver().commit_many(&batch));
        assert_eq!(infos.len(), 2, "{}", bench.label);
        assert_eq!(kind(bench.driver().commit_many(&batch)), Some(ErrorKind::FailedPrecondition));
        assert!(bench.driver().commit_many(&[]).is_ok_and(|infos| infos.is_empty()));
    });
}
