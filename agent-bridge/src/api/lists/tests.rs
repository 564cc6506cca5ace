use outrider_api::Flow;

use super::*;

fn flow(workload: &str, client: &str, at: u64) -> Flow {
    Flow {
        workload: workload.into(),
        client: client.into(),
        server: "10.0.0.2:6379".into(),
        app: "Redis".into(),
        host: String::new(),
        sni: String::new(),
        action: "allow".into(),
        rule: 0,
        bytes_client: 0,
        bytes_server: 0,
        at,
    }
}

fn flows() -> Vec<Flow> {
    let mut flows: Vec<_> = (0..7u64)
        .map(|number| flow("default/cache", &format!("c{number}"), 100 + number / 2))
        .collect();
    // One place, twice.
    flows.push(flow("default/web", "c", 100));
    flows.push(flow("default/web", "c", 100));
    flows
}

/// A page and the cursor of the next one.
struct Paged {
    items: Vec<Flow>,
    next: Option<String>,
}

fn paged(flows: &[Flow], asked: &ListQuery) -> Result<Paged, Refusal> {
    let whom = Whom { workload: asked.workload.clone(), group: None, app: asked.app.clone() };
    let page = Page::from(Selection::read(asked, whom)?.pick(flows));
    Ok(Paged { items: serde_json::from_slice(&page.json).unwrap(), next: page.next })
}

fn page(flows: &[Flow], asked: &ListQuery) -> Paged {
    paged(flows, asked).unwrap()
}

#[test]
fn pages_put_together_are_the_list_whatever_their_size() {
    let whole = page(&flows(), &ListQuery::default());
    assert_eq!((whole.items.len(), &whole.next), (9, &None));
    assert!(
        whole
            .items
            .is_sorted_by_key(|flow| std::cmp::Reverse(flow.at))
    );
    for limit in 1..=10 {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let asked = ListQuery { limit: Some(limit), cursor, ..ListQuery::default() };
            let mut shuffled = flows();
            shuffled.reverse();
            let page = page(&shuffled, &asked);
            assert!(page.items.len() <= limit as usize);
            all.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(all, whole.items, "limit {limit}");
    }
}

#[test]
fn what_comes_and_goes_between_pages_moves_nothing_else() {
    let asked = ListQuery { limit: Some(3), ..ListQuery::default() };
    let first = page(&flows(), &asked);
    let mut later = flows();
    later.retain(|flow| !first.items.contains(flow));
    later.push(flow("default/new", "c9", 500));
    let asked = ListQuery { cursor: first.next, limit: None, ..asked };
    assert_eq!(page(&later, &asked).items, page(&flows(), &ListQuery::default()).items[3..]);
}

#[test]
fn filters_narrow_by_workload_application_and_time() {
    let count = |asked: ListQuery| page(&flows(), &asked).items.len();
    let query = ListQuery::default;
    assert_eq!(count(ListQuery { workload: Some("web".into()), ..query() }), 2);
    assert_eq!(count(ListQuery { workload: Some("default/cache".into()), ..query() }), 7);
    assert_eq!(count(ListQuery { workload: Some("ault/cache".into()), ..query() }), 0);
    assert_eq!(count(ListQuery { app: Some("redis".into()), ..query() }), 9);
    assert_eq!(count(ListQuery { app: Some("http".into()), ..query() }), 0);
    assert_eq!(count(ListQuery { since: Some(102), ..query() }), 3);
}

#[test]
fn odd_cursors_and_limits_are_refused() {
    let long = format!("0.{}", "61".repeat(MAX_CURSOR));
    for cursor in ["", "0", "0.6", "0.zz", "g.61", "0.ff", "0.é", long.as_str()] {
        let asked = ListQuery { cursor: Some(cursor.into()), ..ListQuery::default() };
        assert!(paged(&flows(), &asked).is_err(), "{cursor}");
    }
    for limit in [0, MAX_LIMIT + 1] {
        let asked = ListQuery { limit: Some(limit), ..ListQuery::default() };
        assert!(paged(&flows(), &asked).is_err(), "{limit}");
    }
}

#[test]
fn a_page_ends_where_it_is_large_and_the_next_one_goes_on() {
    let large = "x".repeat(MAX_PAGE / 4);
    let mut flows = flows();
    flows.iter_mut().for_each(|flow| flow.sni = large.clone());
    let (mut all, mut asked, mut pages) = (Vec::new(), ListQuery::default(), 0);
    loop {
        let page = page(&flows, &asked);
        assert!((1..=4).contains(&page.items.len()), "{}", page.items.len());
        all.extend(page.items);
        pages += 1;
        asked.cursor = page.next;
        if asked.cursor.is_none() {
            break;
        }
    }
    assert_eq!((all.len(), pages), (9, 3));
}

#[test]
fn what_is_picked_from_part_after_part_is_one_page() {
    let parts = flows();
    let asked = ListQuery { limit: Some(4), ..ListQuery::default() };
    let selection = Selection::read(&asked, Whom::default()).unwrap();
    let mut picked = Picked::default();
    for part in parts.chunks(3) {
        selection.pick_more(&mut picked, part);
        assert_eq!(picked.is_full(&selection), picked.items.len() == 4 && picked.more);
    }
    assert_eq!((picked.items.len(), picked.more), (4, true));
}
