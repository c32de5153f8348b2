//! Which class a text names, for labels that hold commas, are a part of each other, or belong to two classes.

use gmflow::checkpoint::ClassNames;
use proptest::prelude::*;

fn labels(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|&label| label.to_owned()).collect()
}

/// As in the published list of ImageNet's labels, where one label is a part of another, and two classes have one label.
fn imagenet() -> Vec<String> {
    labels(&[
        "missile",
        "projectile, missile",
        "maillot",
        "maillot, tank suit",
        "crane",
        "crane",
        "Cardigan, Cardigan Welsh corgi",
        "cardigan",
        "tench, Tinca tinca",
        "paint, red",
        "red,green",
        "red",
    ])
}

#[test]
fn a_whole_label_is_one_class() {
    let labels = imagenet();
    let names = ClassNames::new(&labels, labels.len());
    let found = |asked: &str| names.find_all(asked).unwrap();
    for (class, label) in labels.iter().enumerate().filter(|(_, label)| *label != "crane") {
        assert_eq!((found(label), names.find(label).unwrap()), (vec![class], class), "{label}");
    }
    for (asked, classes) in [
        ("projectile,missile", &[1][..]),
        (" projectile ,  missile ", &[1]),
        ("PROJECTILE, Missile", &[1]),
        ("projectile", &[1]),
        ("Cardigan", &[6]),
        ("cardigan welsh corgi", &[6]),
        ("tank suit", &[3]),
        ("3", &[3]),
        ("3,7", &[3, 7]),
        ("4, 5", &[4, 5]),
        ("missile, projectile", &[0, 1]),
        ("missile,projectile, missile", &[0, 1]),
        ("tench, Tinca tinca, missile", &[8, 0]),
        ("missile,missile", &[0, 0]),
        ("red, green", &[10]),
        ("red,paint,red,green", &[11, 9, 10]),
    ] {
        let found = names.find_all(asked);
        assert_eq!(found.as_deref().ok(), Some(classes), "{asked}: {found:?}");
    }
}

#[test]
fn a_name_of_several_classes_is_an_error_with_the_candidates() {
    let labels = imagenet();
    let names = ClassNames::new(&labels, labels.len());
    for (asked, candidates) in [
        ("crane", &["4 (\"crane\")", "5 (\"crane\")"][..]),
        ("crane,missile", &["4 (", "5 ("]),
        ("CARDIGAN", &["6 (\"Cardigan, Cardigan Welsh corgi\")", "7 (\"cardigan\")"]),
        ("MISSILE", &["0 (", "1 ("]),
        ("Red", &["9 (", "10 (", "11 ("]),
    ] {
        let message = names.find_all(asked).unwrap_err().to_string();
        assert!(candidates.iter().all(|candidate| message.contains(candidate)), "{asked}: {message}");
    }
}

#[test]
fn a_label_goes_before_an_index_and_the_index_can_be_asked_for() {
    let labels = labels(&["three", "0", "Cat", "4, four", "1"]);
    let names = ClassNames::new(&labels, 6);
    for (asked, class) in
        [("0", 1), ("1", 4), ("2", 2), ("3", 3), ("5", 5), ("index=0", 0), ("index=1", 1), ("cat", 2)]
    {
        assert_eq!(names.find(asked).unwrap(), class, "{asked}");
    }
    // A synonym of one class and the index of another.
    let message = names.find("4").unwrap_err().to_string();
    assert!(message.contains("3 (\"4, four\")") && message.contains("index=4 (\"1\")"), "{message}");
    assert_eq!((names.find("index=4").unwrap(), names.find("four").unwrap()), (4, 3));
    for asked in ["6", "index=6", "-1", "+2", "2.0", "", "dog", "0,", ",0", "0,,1", "index="] {
        let message = names.find_all(asked).unwrap_err().to_string();
        assert!(message.contains("an index below 6") && message.contains("\"three\", \"0\", \"Cat\""), "{message}");
    }
    assert_eq!(ClassNames::new(&[], 3).find_all("2,0").unwrap(), [2, 0]);
    assert!(ClassNames::new(&[], 3).find("3").unwrap_err().to_string().contains("an index below 3, got 3"));
}

#[test]
fn of_many_labels_those_like_the_text_are_named() {
    let labels: Vec<String> = (0..1000).map(|i| format!("thing {i}, Res {i}")).collect();
    let names = ClassNames::new(&labels, 1000);
    assert_eq!(names.find("res 17").unwrap(), 17);
    let message = names.find("thing 17x").unwrap_err().to_string();
    assert!(message.contains("thing 17, Res 17") && message.len() < 300, "{message}");
}

/// Texts that often are, hold, or differ from each other by case, spaces or commas.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[aAb, ]{0,5}",
        2 => "[0-3]{1,2}",
        1 => "[a-c]{1,3}(, ?[a-c]{1,3}){1,2}",
        1 => "(index=)?[0-9,]{1,3}",
        1 => any::<String>(),
    ]
}

#[test]
fn a_number_is_no_index_where_all_names_are_numbers() {
    let labels = labels(&["1", "10", "11", "2"]);
    let names = ClassNames::new(&labels, 4);
    assert_eq!((names.find("2").unwrap(), names.find("10").unwrap(), names.find("index=3").unwrap()), (3, 1, 3));
    let message = names.find("3").unwrap_err().to_string();
    assert!(message.contains("index=0 to index=3, or one of \"1\", \"10\""), "{message}");
}

proptest! {
    /// Whatever the labels: each asks for its own class, and for no other.
    #[test]
    fn a_label_names_its_own_class(labels in prop::collection::vec(text(), 1..9), spare in 0_usize..3) {
        let names = ClassNames::new(&labels, labels.len() + spare);
        for (class, label) in labels.iter().enumerate() {
            let same: Vec<usize> = (0..labels.len()).filter(|&other| labels[other] == *label).collect();
            match names.find_all(label) {
                Ok(found) => prop_assert_eq!((found, same.len()), (vec![class], 1)),
                Err(error) => {
                    let message = error.to_string();
                    prop_assert!(same.len() > 1, "{}", message);
                    for class in same {
                        prop_assert!(message.contains(&format!("{class} (")), "{}", message);
                    }
                }
            }
        }
    }

    /// The order of the classes decides nothing but their indices.
    #[test]
    fn the_order_of_the_labels_does_not_matter(
        labels in prop::collection::vec("[aAb, ]{0,4}", 1..7),
        asked in "[aAb, ]{0,6}",
        turn in 0_usize..7,
    ) {
        let mut other = labels.clone();
        other.rotate_left(turn % labels.len());
        other.reverse();
        let of = |labels: &[String]| {
            let found = ClassNames::new(labels, labels.len()).find_all(&asked);
            found.map(|classes| classes.iter().map(|&class| labels[class].clone()).collect::<Vec<_>>()).ok()
        };
        prop_assert_eq!(of(&labels), of(&other));
    }

    /// An index that is asked for as one is that class, whatever the labels are.
    #[test]
    fn every_class_can_be_asked_for(labels in prop::collection::vec("[0-9=index, ]{0,8}", 1..9)) {
        let names = ClassNames::new(&labels, labels.len());
        for class in 0..labels.len() {
            let asked = format!("index={class}");
            if !labels.iter().any(|label| label.to_lowercase().contains(&asked)) {
                prop_assert_eq!(names.find(&asked).unwrap(), class);
            }
        }
    }
}
