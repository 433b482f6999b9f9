use serde_json::json;

use super::cards::{What, cards};
use super::*;

/// Images by their layers, each layer named by a word, on stacks that are named by all words below.
fn graph(images: &[(&str, &[&str])]) -> Graph {
    let mut layers: BTreeMap<String, LayerSummary> = BTreeMap::new();
    let mut details = BTreeMap::new();
    for (name, words) in images {
        let mut chains = Vec::new();
        for word in *words {
            let parent: Option<String> = chains.last().cloned();
            let chain = format!("{}{word}", parent.clone().unwrap_or_default());
            let layer = layers.entry(chain.clone()).or_insert_with(|| LayerSummary {
                chain_id: chain.clone(),
                diff_id: format!("sha256:{word}"),
                parent,
                size: 1000,
                tar_size: 0,
                kept: Vec::new(),
                images: Vec::new(),
                containers: Vec::new(),
            });
            layer.images.push((*name).to_owned());
            chains.push(chain);
        }
        let steps: Vec<_> = words.iter().map(|word| json!({"created_by": word})).collect();
        let config = json!({"rootfs": {"type": "layers", "diff_ids": []}, "history": steps});
        let image = layerd_api::ImageSummary {
            id: (*name).to_owned(),
            names: vec![format!("docker.io/library/{name}:1")],
            created: None,
            size: 1000 * words.len() as u64,
            driver: "vfs".to_owned(),
            drivers: Vec::new(),
            platform: String::new(),
            layers: chains,
            labels: BTreeMap::new(),
        };
        details.insert((*name).to_owned(), ImageDetails { image, config, layers: Vec::new() });
    }
    Graph::new(&details, layers.into_values().collect(), Vec::new()).expect("a graph")
}

/// A card and what stands on it, as words.
fn text(cards: &[cards::Card<'_>], at: usize) -> String {
    let what = match &cards[at].what {
        What::Layers(layers) => {
            let words: Vec<_> =
                layers.iter().map(|layer| &layer.diff_id["sha256:".len()..]).collect();
            words.join("+")
        }
        What::Image(image, _) => image.called().to_owned(),
    };
    let children: Vec<_> = cards[at].children.iter().map(|child| text(cards, *child)).collect();
    if children.is_empty() { what } else { format!("{what}({})", children.join(" ")) }
}

#[test]
fn layers_that_the_same_images_share_are_one_card() {
    for (what, images, expected) in [
        ("one image", &[("a", &["x", "y"][..])][..], "x+y(a:1)"),
        (
            "a common base",
            &[("a", &["x", "y", "p"]), ("b", &["x", "y", "q", "r"])],
            "x+y(p(a:1) q+r(b:1))",
        ),
        ("one on another", &[("a", &["x"]), ("b", &["x", "y"])], "x(a:1 y(b:1))"),
        ("two names for the same layers", &[("a", &["x"]), ("b", &["x"])], "x(a:1 b:1)"),
        ("nothing in common", &[("a", &["x"]), ("b", &["y"])], "x(a:1) | y(b:1)"),
        ("no layers", &[("a", &[])], "a:1"),
        ("nothing", &[], ""),
    ] {
        let graph = graph(images);
        let (cards, roots) = cards(&graph);
        let found: Vec<_> = roots.iter().map(|root| text(&cards, *root)).collect();
        assert_eq!(found.join(" | "), expected, "{what}");
    }
}

#[test]
fn layers_come_with_their_steps_and_after_their_parents() {
    let graph = graph(&[("b", &["x", "q"]), ("a", &["x", "p"])]);
    let found: Vec<_> = graph
        .layers
        .iter()
        .map(|layer| (layer.chain_id.as_str(), layer.parent.as_deref(), layer.users))
        .collect();
    assert_eq!(found, [("x", None, 2), ("xp", Some("x"), 1), ("xq", Some("x"), 1)]);
    assert_eq!(graph.layers[1].step.as_deref(), Some("p"), "the step of its image");
}

#[test]
fn a_thousand_layers_are_a_picture_of_bounded_size() {
    let names: Vec<String> = (0..50).map(|at| format!("image-{at:02}")).collect();
    let words: Vec<Vec<String>> = (0..50)
        .map(|image| {
            (0..20)
                .map(|at| if at < 3 { format!("{at}") } else { format!("{image}.{at}") })
                .collect()
        })
        .collect();
    let words: Vec<Vec<&str>> =
        words.iter().map(|words| words.iter().map(String::as_str).collect()).collect();
    let images: Vec<_> =
        names.iter().zip(&words).map(|(name, words)| (name.as_str(), &words[..])).collect();
    let graph = graph(&images);
    assert_eq!(graph.layers.len(), 3 + 50 * 17);
    let svg = svg(&graph);
    assert_eq!(svg, super::svg(&graph), "the same bytes");
    assert!(svg.len() < 1 << 20, "{} bytes", svg.len());
    assert_eq!(svg.matches("class=\"layer\"").count(), graph.layers.len(), "all are shown");
}

#[test]
fn hostile_steps_are_text() {
    let graph = graph(&[("a", &["</title><script>x()</script>\u{202e}\u{1}\"]; b [label=\"c"])]);
    let svg = svg(&graph);
    assert!(!svg.contains("<script"), "{svg}");
    let dot = dot(&graph);
    assert!(dot.contains("\\\"]; b [label=\\\"c"), "{dot}");
    for text in [svg, dot] {
        assert!(!text.contains(['\u{202e}', '\u{1}']), "{text}");
    }
}
