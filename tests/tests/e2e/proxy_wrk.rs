//! wrk, which many try a proxy with first: nothing fails, and all that it counts has been counted.

use lb_tests::process::wait_for;

use crate::{
    proxy_h2::HTTP,
    proxy_stage::{SHARED, Stage},
    scene::{PATIENCE, VIP},
};

#[test]
fn wrk_has_nothing_to_complain_of() {
    let stage = Stage::served(2, HTTP, "");
    let labels = ["service=\"web\"", "code=\"200\""];
    let counted = || stage.metric("lb_proxy_requests_total", &labels);
    for (to, path) in [(VIP, "/size/100"), (SHARED, "/size/20000")] {
        let before = counted();
        let url = format!("http://{to}{path}");
        let words = ["-t1", "-c16", "-d2s", "-H", "Host: web", &url];
        let printed = stage.client().tool("wrk", &words).unwrap();
        // It has no word for these where there are none.
        for bad in ["Socket errors", "Non-2xx"] {
            assert!(!printed.contains(bad), "{printed}");
        }
        let requests = printed.lines().find_map(|line| {
            let (requests, _) = line.trim().split_once(" requests in ")?;
            requests.parse::<f64>().ok()
        });
        let requests = requests.unwrap_or_else(|| panic!("{printed}"));
        assert!(requests > 100.0, "{printed}");
        // Those that the end of the time cut off are not in wrk's count, at most one a connection.
        let now = wait_for("all to be counted", PATIENCE, || {
            let now = counted() - before;
            Ok((now >= requests).then_some(now))
        })
        .unwrap();
        assert!(now <= requests + 16.0, "{now} counted, wrk: {requests}");
    }
    let all = stage.metric("lb_proxy_requests_total", &labels[..1]);
    let failed = all - counted();
    // Who is gone before its answer may have been noticed as that.
    assert!(failed <= 32.0, "{failed} had another end");
}
