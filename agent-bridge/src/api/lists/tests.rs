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

fn page(flows: Vec<Flow>, asked: &ListQuery) -> Page<Flow> {
    let whom = Whom { workload: asked.workload.clone(), group: None, app: asked.app.clone() };
    Page::of(flows, asked, &whom).unwrap()
}

#[test]
fn pages_put_together_are_the_list_whatever_their_size() {
    let whole = page(flows(), &ListQuery::default());
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
            let page = page(shuffled, &asked);
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
    let first = page(flows(), &asked);
    let mut later = flows();
    later.retain(|flow| !first.items.contains(flow));
    later.push(flow("default/new", "c9", 500));
    let asked = ListQuery { cursor: first.next, limit: None, ..asked };
    assert_eq!(page(later, &asked).items, page(flows(), &ListQuery::default()).items[3..]);
}

#[test]
fn filters_narrow_by_workload_application_and_time() {
    let count = |asked: ListQuery| page(flows(), &asked).items.len();
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
        assert!(Page::of(flows(), &asked, &Whom::default()).is_err(), "{cursor}");
    }
    for limit in [0, MAX_LIMIT + 1] {
        let asked = ListQuery { limit: Some(limit), ..ListQuery::default() };
        assert!(Page::of(flows(), &asked, &Whom::default()).is_err(), "{limit}");
    }
}
