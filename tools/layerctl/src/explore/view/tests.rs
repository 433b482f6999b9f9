use super::super::testing::{LAYERS, letter, stack};
use super::*;

fn spec(show: Show) -> Spec {
    Spec { show, matcher: Matcher::All, kinds: Kinds::default(), sort: Sort::Name }
}

fn rows(forest: &Forest, spec: &Spec) -> Vec<String> {
    let view = View::make(forest, spec, || true).expect("a wanted view");
    let rows = view.rows.iter().map(|row| {
        let path = String::from_utf8_lossy(forest.path(row.id)).replace('\x1b', "^");
        let change = if row.listed { letter(row.change) } else { ' ' };
        format!("{change}/{path} {}", row.bytes)
    });
    rows.collect()
}

fn check(cases: &[(Show, &[&str])]) {
    let forest = Forest::of(&stack(LAYERS));
    for (show, expected) in cases {
        assert_eq!(rows(&forest, &spec(*show)), *expected, "{show:?}");
    }
}

#[test]
fn a_layer_shows_what_it_did_and_the_way_there() {
    check(&[
        (
            Show::Changes(0),
            &[
                "A/ 19",
                "A/etc 9",
                "A/etc/motd 5",
                "A/etc/passwd 4",
                "A/usr 10",
                "A/usr/bin 10",
                "A/usr/bin/bash 10",
                "A/usr/bin/dash 0",
                "A/usr/bin/sh 0",
            ],
        ),
        (
            Show::Changes(1),
            &[" / 50", "=/etc 18", "=/etc/motd 5", "C/etc/passwd 13", "A/srv 32", "A/srv/big 32"],
        ),
        (
            Show::Changes(2),
            &[
                " / 4",
                " /etc 0",
                "D/etc/motd 5",
                "=/srv 4",
                "D/srv/big 32",
                "A/srv/e^[m 0",
                "A/srv/new 3",
                "A/srv/漢字 1",
            ],
        ),
    ]);
}

#[test]
fn the_tree_as_of_a_layer_shows_what_was_there_before_too() {
    check(&[(
        Show::Tree(1),
        &[
            "./ 60",
            "=/etc 18",
            "=/etc/motd 5",
            "C/etc/passwd 13",
            "A/srv 32",
            "A/srv/big 32",
            "./usr 10",
            "./usr/bin 10",
            "./usr/bin/bash 10",
            "./usr/bin/dash 0",
            "./usr/bin/sh 0",
        ],
    )]);
}

#[test]
fn two_layers_show_how_their_trees_differ() {
    check(&[
        (
            Show::Compare(0, 2),
            &[
                " / 17",
                " /etc 13",
                "D/etc/motd 5",
                "C/etc/passwd 13",
                "A/srv 4",
                "A/srv/e^[m 0",
                "A/srv/new 3",
                "A/srv/漢字 1",
            ],
        ),
        (
            Show::Compare(2, 1),
            &[
                " / 37",
                " /etc 5",
                "A/etc/motd 5",
                " /srv 32",
                "A/srv/big 32",
                "D/srv/e^[m 0",
                "D/srv/new 3",
                "D/srv/漢字 1",
            ],
        ),
        (Show::Compare(1, 1), &[]),
    ]);
}

#[test]
fn names_kinds_and_order_choose_among_them() {
    let forest = Forest::of(&stack(LAYERS));
    let named = |text| Matcher::parse(text).expect("a pattern");
    let tree = spec(Show::Tree(2));
    let removed = Kinds { added: false, changed: false, removed: true, unchanged: false };
    for (what, spec, expected) in [
        (
            "a name",
            Spec { matcher: named("pass"), ..tree.clone() },
            &[" / 13", " /etc 13", "./etc/passwd 13"][..],
        ),
        (
            "a directory's name, with what is in it",
            Spec { matcher: named("etc"), ..tree.clone() },
            &[" / 13", "./etc 13", "D/etc/motd 5", "./etc/passwd 13"],
        ),
        ("no name", Spec { matcher: named("nothing"), ..tree.clone() }, &[]),
        (
            "what is gone",
            Spec { kinds: removed, ..tree.clone() },
            &[" / 0", " /etc 0", "D/etc/motd 5", " /srv 0", "D/srv/big 32"],
        ),
        (
            "the largest first",
            Spec { sort: Sort::Size, ..tree },
            &[
                "./ 27",
                "./etc 13",
                "./etc/passwd 13",
                "D/etc/motd 5",
                "./usr 10",
                "./usr/bin 10",
                "./usr/bin/bash 10",
                "./usr/bin/dash 0",
                "./usr/bin/sh 0",
                "=/srv 4",
                "D/srv/big 32",
                "A/srv/new 3",
                "A/srv/漢字 1",
                "A/srv/e^[m 0",
            ],
        ),
    ] {
        assert_eq!(rows(&forest, &spec), expected, "{what}");
        let view = View::make(&forest, &spec, || true).expect("a view");
        for (at, row) in view.rows.iter().enumerate() {
            let inside = view
                .rows
                .iter()
                .filter(|other| other.id >= row.id && other.id < forest.end(row.id));
            assert_eq!(row.end as usize, at + inside.count(), "{what}: the end of row {at}");
        }
    }
}

#[test]
fn the_largest_come_first_in_each_directory() {
    let layers: &[&[&str]] =
        &[&["a/", "a/1=1", "a/3=333", "a/2=22", "b=4444", "c/", "c/x=666666", "c/y="]];
    let forest = Forest::of(&stack(layers));
    let found = rows(&forest, &Spec { sort: Sort::Size, ..spec(Show::Tree(0)) });
    let expected =
        ["A/ 16", "A/a 6", "A/a/3 3", "A/a/2 2", "A/a/1 1", "A/c 6", "A/c/x 6", "A/c/y 0", "A/b 4"];
    assert_eq!(found, expected, "and those of one size by name");
}

#[test]
fn a_view_that_nobody_waits_for_is_not_made() {
    let forest = Forest::of(&stack(LAYERS));
    assert!(View::make(&forest, &spec(Show::Tree(0)), || false).is_none());
}

#[test]
fn a_path_that_is_gone_and_anew_in_one_layer_is_compared_with_what_was() {
    let layers: &[&[&str]] = &[
        &["d/", "d/same=1", "d/other=1", "d/gone=1"],
        &["d/", "d/.wh..wh..opq", "d/same=1", "d/other=2"],
    ];
    let forest = Forest::of(&stack(layers));
    let found = rows(&forest, &spec(Show::Changes(1)));
    assert_eq!(found, [" / 2", "=/d 2", "D/d/gone 1", "C/d/other 1", "=/d/same 1"]);
}

#[test]
fn names_of_one_file_in_several_layers_count_once() {
    let layers: &[&[&str]] = &[&["a=12345"], &["b => a", "c => a"], &[".wh.a"]];
    let forest = Forest::of(&stack(layers));
    for (show, expected) in
        [(Show::Tree(1), [". /a", "A /b", "A /c"]), (Show::Tree(2), ["D /a", ". /b", ". /c"])]
    {
        let view = View::make(&forest, &spec(show), || true).expect("a view");
        assert_eq!(view.rows[0].bytes, 5, "all of it, {show:?}");
        let names = view.rows[1..].iter().map(|row| {
            format!("{} /{}", letter(row.change), String::from_utf8_lossy(forest.path(row.id)))
        });
        assert_eq!(names.collect::<Vec<_>>(), expected, "{show:?}");
    }
}
