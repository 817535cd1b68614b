//! Tables there and back again.

use super::*;

fn read(arguments: Value) -> Value {
    testing::call("csv_to_json", arguments).unwrap().structured.unwrap()
}

fn written(arguments: Value) -> String {
    testing::call("json_to_csv", arguments).unwrap().text()
}

#[test]
fn the_first_line_names_the_columns() {
    let table = read(json!({"text": "\u{feff}name,note\r\nAda,\"says \"\"hi\"\",\nand more\"\r\nGrace,\r\n"}));
    let rows = json!([{"name": "Ada", "note": "says \"hi\",\nand more"}, {"name": "Grace", "note": ""}]);
    assert_eq!(table, json!({"columns": ["name", "note"], "rows": rows}));
}

#[test]
fn without_a_header_rows_are_lists() {
    let table = read(json!({"text": "007; a\n8;b ", "delimiter": ";", "header": false, "trim": true}));
    assert_eq!(table, json!({"columns": null, "rows": [["007", "a"], ["8", "b"]]}));
    assert_eq!(read(json!({"text": ""})), json!({"columns": [], "rows": []}));
}

#[test]
fn what_is_no_table_is_told_with_its_line() {
    for (arguments, code, part) in [
        (json!({"text": "a,b\n1,2\n3\n"}), Some("csv_fields"), "line 3: there are 1 fields, and not 2"),
        (json!({"text": "a,a\n1,2\n"}), Some("csv_column_twice"), "line 1: there are two columns named \"a\""),
        (json!({"text": "a", "delimiter": "\n"}), None, "/delimiter"),
        (json!({"text": "a", "delimiter": "é"}), None, "/delimiter"),
    ] {
        let error = testing::call("csv_to_json", arguments.clone()).unwrap_err();
        assert_eq!(error.code(), code, "{arguments}");
        assert!(error.message().contains(part), "{arguments}: {}", error.message());
    }
}

#[test]
fn objects_become_lines_below_their_columns() {
    let rows = json!([{"id": 1, "note": "a, b"}, {"note": null}, {"id": true}]);
    assert_eq!(written(json!({"rows": rows})), "id,note\r\n1,\"a, b\"\r\n,\r\ntrue,\r\n");
    let some = written(json!({"rows": [{"b": 1.5}], "columns": ["a", "b"], "delimiter": "\t"}));
    assert_eq!(some, "a\tb\r\n\t1.5\r\n");
}

#[test]
fn lists_become_lines() {
    assert_eq!(written(json!({"rows": [["x", 1], ["y", 2]]})), "x,1\r\ny,2\r\n");
    assert_eq!(written(json!({"rows": [["x", 1]], "columns": ["a", "b"]})), "a,b\r\nx,1\r\n");
    assert_eq!(written(json!({"rows": []})), "");
}

#[test]
fn a_row_that_does_not_fit_is_told_by_its_place() {
    for (arguments, part) in [
        (json!({"rows": [{"a": 1}, {"b": 1}]}), "/rows/1: there is no column \"b\""),
        (json!({"rows": [{"a": []}]}), "/rows/0: a field is no list"),
        (json!({"rows": [[1, 2], [1]]}), "/rows/1: has 1 fields, and not 2"),
        (json!({"rows": [[1], {"a": 1}]}), "/rows/1: is an object"),
    ] {
        let error = testing::call("json_to_csv", arguments.clone()).unwrap_err();
        assert_eq!(error.code(), Some("csv_row"), "{arguments}");
        assert!(error.message().contains(part), "{arguments}: {}", error.message());
    }
}

#[test]
fn what_is_written_can_be_read() {
    let rows = json!([{"a": "x\r\ny", "b": "\"", "c": " z "}, {"a": "", "b": ";,", "c": "ü"}]);
    let text = written(json!({"rows": rows}));
    assert_eq!(read(json!({"text": text}))["rows"], rows);
}
