use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{id::VersionSlot, rel_path::RelPath};

const OPENPYPE: &str = "{root[work]}/{project[name]}/{hierarchy}/{asset}/publish/{family}/{subset}/v{version:0>3}/\
                        {project[code]}_{asset}_{subset}_v{version:0>3}<_{output}><.{frame}><_{udim}>.{ext}";

fn template(text: &str) -> Template {
    Template::parse(text).unwrap_or_else(|error| panic!("{error}: {}", error.problem))
}

fn path(text: &str) -> RelPath {
    text.parse().unwrap()
}

/// Writes what a path says as one line: hierarchy or silo, asset, subset, version, what is inside, representation, role.
fn read(template: &Template, text: &str) -> Option<String> {
    let PublishPath { dir, fields, inside, representation, role, .. } = template.invert(&path(text))?;
    let above = fields.silo.map(|silo| silo.to_string()).or(fields.hierarchy.map(|h| h.to_string()));
    let (above, asset, subset, slot) = (above.unwrap_or_default(), fields.asset, fields.subset, fields.slot);
    assert_eq!(dir.join(&inside).unwrap().as_str(), text);
    assert_eq!(template.invert_dir(&dir).unwrap().fields.asset, asset);
    Some(format!("{above} {asset}/{subset}@{slot} {inside} -> {representation} {role:?}"))
}

#[test]
fn paths_of_avalon_studios_are_read() {
    let avalon = template(DEFAULT_PUBLISH);
    for (text, expected) in [
        (
            "assets/Bruce/publish/rigDefault/v002/rigDefault.ma",
            "assets Bruce/rigDefault@v002 rigDefault.ma -> ma Entry",
        ),
        (
            "film/shot1/publish/Bruce_01/v004/Bruce_01.curves",
            "film shot1/Bruce_01@v004 Bruce_01.curves -> curves Entry",
        ),
        (
            "film/1000/publish/beauty/v003/beauty.exr/beauty.1001.exr",
            "film 1000/beauty@v003 beauty.exr/beauty.1001.exr -> exr Member",
        ),
        (
            "assets/Bruce/publish/textureDefault/v012/TexturePack/skin_diffuse.1001.tx",
            "assets Bruce/textureDefault@v012 TexturePack/skin_diffuse.1001.tx -> TexturePack Member",
        ),
        (
            "assets/robot/publish/modelDefault/v003/modelDefault.usdc",
            "assets robot/modelDefault@v003 modelDefault.usdc -> usdc Entry",
        ),
        (
            "film/sh010/publish/beauty/v002/beauty.exr/beauty.1024.exr",
            "film sh010/beauty@v002 beauty.exr/beauty.1024.exr -> exr Member",
        ),
        (
            "film/sh010/publish/animRobot/v003/animRobot.blend",
            "film sh010/animRobot@v003 animRobot.blend -> blend Entry",
        ),
        (
            "assets/robot/publish/textureDefault/v001/robot_normal.1011.exr",
            "assets robot/textureDefault@v001 robot_normal.1011.exr -> exr Resource",
        ),
        (
            "film/sh010/publish/beauty/v1000/beauty.1001.exr",
            "film sh010/beauty@v1000 beauty.1001.exr -> exr Member",
        ),
        ("film/sh010/publish/fx/hero/fx.tar.gz", "film sh010/fx@hero fx.tar.gz -> tar.gz Entry"),
        ("film/sh010/publish/fx/v001/Notes.TXT", "film sh010/fx@v001 Notes.TXT -> txt Resource"),
        ("film/sh010/publish/fx/v001/README", "film sh010/fx@v001 README -> file Resource"),
        ("film/sh010/publish/fx/v001/.lock", "film sh010/fx@v001 .lock -> lock Resource"),
        ("film/sh010/publish/fx/v001/my maps/x.tx", "film sh010/fx@v001 my maps/x.tx -> tx Resource"),
    ] {
        assert_eq!(read(&avalon, text).as_deref(), Some(expected));
    }
}

#[test]
fn paths_that_are_no_publish_are_not_read() {
    let avalon = template(DEFAULT_PUBLISH);
    for text in [
        "assets/robot/publish/modelDefault/v001",
        "assets/robot/work/modelling/maya/scene.ma",
        "assets/robot/publish/modelDefault/v01/modelDefault.abc",
        "assets/robot/publish/modelDefault/v0001/modelDefault.abc",
        "assets/robot/publish/modelDefault/v1000000/modelDefault.abc",
        "assets/robot/publish/modelDefault/v001.bak/modelDefault.abc",
        "assets/robot/publish/model default/v001/modelDefault.abc",
        "robot/publish/modelDefault/v001/modelDefault.abc",
        ".avalon/incoming/publish/modelDefault/v001/x.abc",
    ] {
        assert_eq!(read(&avalon, text), None, "{text}");
    }
}

#[test]
fn paths_of_openpype_are_read() {
    let openpype = template(OPENPYPE);
    for (text, expected) in [
        (
            "Shots/Sq01/Sh0010/publish/write/renderMain/v001/movie101_Sh0010_renderMain_v001.1021.exr",
            "Shots/Sq01 Sh0010/renderMain@v001 movie101_Sh0010_renderMain_v001.1021.exr -> exr Entry",
        ),
        (
            "test_asset/publish/model/modelMain/hero/test_project_test_asset_modelMain_hero.abc",
            " test_asset/modelMain@hero test_project_test_asset_modelMain_hero.abc -> abc Entry",
        ),
        (
            "a/b/c/d/look/publish/look/lookMain/v012/p_look_lookMain_v012_baked_1001.tx",
            "a/b/c/d look/lookMain@v012 p_look_lookMain_v012_baked_1001.tx -> tx Entry",
        ),
        (
            "a/b/publish/look/lookMain/v012/resources/skin.1001.TX",
            "a b/lookMain@v012 resources/skin.1001.TX -> resources Member",
        ),
        (
            "a/b/publish/look/lookMain/v012/p_b_lookMain_v011.ma",
            "a b/lookMain@v012 p_b_lookMain_v011.ma -> ma Resource",
        ),
    ] {
        assert_eq!(read(&openpype, text).as_deref(), Some(expected));
    }
    let found =
        openpype.invert(&path("s/x/publish/r/beauty/v001/prj_x_beauty_v001_left.1001_1002.exr")).unwrap();
    assert_eq!(found.fields.others, BTreeMap::from([("family".into(), "r".into())]));
    let keys = ["frame=1001", "output=left", "project[code]=prj", "udim=1002"];
    assert_eq!(found.file_keys.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(), keys);
    assert_eq!(found.fields.version_id(&"movie".parse().unwrap()).to_string(), "movie:x/beauty@v001");
}

#[test]
fn a_work_area_is_not_a_hierarchy() {
    let openpype = template(OPENPYPE);
    assert_eq!(
        read(&openpype, "s/x/work/publish/r/beauty/v001/a.exr").as_deref(),
        Some("s/x work/beauty@v001 a.exr -> exr Resource")
    );
    assert_eq!(read(&openpype, "s/x/work/comp/publish/r/beauty/v001/a.exr"), None);
    assert_eq!(read(&openpype, ".avalon/trash/x/publish/r/beauty/v001/a.exr"), None);
}

#[test]
fn only_directories_that_may_hold_versions_are_worth_watching() {
    let avalon = template(DEFAULT_PUBLISH);
    let openpype = template(OPENPYPE);
    for (dir, in_avalon, in_openpype) in [
        ("assets", true, true),
        ("assets/robot", true, true),
        ("assets/robot/publish", true, true),
        ("assets/robot/publish/model", true, true),
        ("assets/robot/publish/model/v001", true, true),
        ("assets/robot/publish/model/hero", true, true),
        ("assets/robot/publish/model/v001/maps", false, false),
        ("assets/robot/publish/model/tmp", false, true),
        ("assets/robot/publish/model/main/v001", false, true),
        ("assets/robot/publish/model/main/v001/maps", false, false),
        ("assets/robot/work", false, true),
        ("assets/robot/work/maya", false, false),
        (".avalon", false, false),
        (".avalon/incoming", false, false),
        ("my show/robot", false, true),
    ] {
        assert_eq!(avalon.could_lead_to_version(&path(dir)), in_avalon, "avalon {dir}");
        assert_eq!(openpype.could_lead_to_version(&path(dir)), in_openpype, "openpype {dir}");
    }
}

#[test]
fn repeated_keys_must_agree_and_every_split_is_tried() {
    let split =
        template("{root}/{project}/{asset}_{subset}/{subset}/v{version:03d}/{asset}.{version:0>4}.{ext}");
    assert_eq!(
        read(&split, "big_red_robot_model/model/v001/big_red_robot.0001.ma").as_deref(),
        Some(" big_red_robot/model@v001 big_red_robot.0001.ma -> ma Entry")
    );
    assert_eq!(read(&split, "robot_model/rig/v001/robot.0001.ma"), None);
    assert_eq!(
        read(&split, "robot_model/model/v001/robot.0002.ma").as_deref(),
        Some(" robot/model@v001 robot.0002.ma -> ma Resource")
    );
}

#[test]
fn hero_folder_needs_a_template_that_keeps_the_names() {
    let mixed = template("{root}/{project}/{asset}/{subset}_v{version:0>3}/{subset}.{ext}");
    let fields = Fields {
        representation: Some("ma".parse().unwrap()),
        ..mixed.invert(&path("a/b_v001/b.ma")).unwrap().fields.to_fields("p".parse().unwrap())
    };
    assert_eq!(mixed.render(&fields).unwrap().as_str(), "a/b_v001/b.ma");
    let hero = Fields { slot: VersionSlot::Hero, ..fields };
    assert!(matches!(mixed.render(&hero), Err(RenderError::NoHero { .. })));
    assert_eq!(mixed.invert(&path("a/hero/b.ma")), None);
}

#[test]
fn rendering_refuses_what_it_cannot_write_or_read_back() {
    let openpype = template(OPENPYPE);
    let mut fields = fields_of_openpype();
    let rendered = openpype.render(&fields).unwrap();
    assert_eq!(rendered.as_str(), "Shots/sq1/sh1/publish/render/beauty/v007/prj_sh1_beauty_v007.1001.exr");
    assert_eq!(openpype.version_dir(&fields).unwrap().as_str(), "Shots/sq1/sh1/publish/render/beauty/v007");

    let refused = |fields: &Fields| openpype.render(fields).unwrap_err().to_string();
    fields.others.insert("output".into(), "0042".into());
    assert!(refused(&fields).starts_with("\"0042\" cannot stand for {output}"), "{}", refused(&fields));
    fields.others.insert("output".into(), "a/b".into());
    assert!(refused(&fields).contains("{output}"));
    fields.others.remove("output");
    fields.hierarchy = Some(path("Shots/work"));
    assert!(refused(&fields).starts_with("Shots/work/sh1/publish/render/beauty/v007 would be taken for"));
    fields.hierarchy = None;
    fields.others.remove("family");
    assert!(refused(&fields).ends_with("needs {family}, which is not known"));

    let split = template("{root}/{project}/{asset}_{subset}/v{version:0>3}/x.{ext}");
    fields.asset = "big_robot".parse().unwrap();
    assert!(matches!(split.version_dir(&fields), Err(RenderError::Ambiguous { .. })));
    let avalon = template(DEFAULT_PUBLISH);
    fields.silo = Some("film".parse().unwrap());
    fields.representation = Some("1001.exr".parse().unwrap());
    assert!(matches!(avalon.render(&fields), Err(RenderError::Ambiguous { .. })));
    fields.representation = None;
    assert!(matches!(avalon.render(&fields), Err(RenderError::Missing { .. })));
    fields.asset = "con".parse().unwrap();
    assert!(matches!(avalon.version_dir(&fields), Err(RenderError::Path { .. })));
}

#[test]
fn templates_that_cannot_be_inverted_are_refused_with_the_place() {
    use TemplateProblem as P;
    let key = |key: &str| key.to_owned();
    for (text, position, problem) in [
        ("", Some(1), P::NotInProject),
        ("/projects/{project}/{asset}/{subset}/v{version}/x", Some(1), P::NotInProject),
        ("{root}/{project}", None, P::Missing { key: "version" }),
        ("{root}/{project}/{asset}/{subset}/v{version/x.{ext}", Some(36), P::UnbalancedBrace),
        ("{root}/{project}/{asset}/{subset}/v{version}}/x.{ext}", Some(45), P::UnbalancedBrace),
        ("{root}/{project}/{asset}/{subset}/v{version}/x<.{frame}.{ext}", Some(47), P::BadOptional),
        ("{root}/{project}/{asset}/{subset}/v{version}/x<_final>.{ext}", Some(47), P::BadOptional),
        ("{root}/{project}/{asset}/{subset}/v{version}/x>.{ext}", Some(47), P::BadOptional),
        ("{root}/{project}/{shot}/{subset}/v{version}/x", Some(18), P::UnknownKey { key: key("shot") }),
        ("{root}/{project}/{asset.x}/{subset}/v{version}/x", Some(18), P::UnknownKey { key: key("asset.x") }),
        (
            "{root}/{project}/{asset}/{subset}/v{version:>3}/x",
            Some(36),
            P::BadFormat { key: key("version"), format: key(">3") },
        ),
        (
            "{root}/{project}/{asset:03}/{subset}/v{version}/x",
            Some(18),
            P::BadFormat { key: key("asset"), format: key("03") },
        ),
        ("{root}/{project}/{asset}//{subset}/v{version}/x.{ext}", Some(26), P::EmptyComponent),
        ("{root}/{project}/{asset}/{subset}/v{version}/<{output}>", Some(46), P::EmptyComponent),
        ("{root}/{project}/../{asset}/{subset}/v{version}/x", Some(18), P::BadText { text: key("..") }),
        ("{root}/{project}/a\\{asset}/{subset}/v{version}/x", Some(18), P::BadText { text: key("a\\") }),
        ("{root}/{project}/{asset}{subset}/v{version}/x", Some(18), P::Adjacent { second: key("subset") }),
        (
            "{root}/{project}/{asset}/{subset}/v{version}/{subset}<{frame}>.{ext}",
            Some(46),
            P::Adjacent { second: key("frame") },
        ),
        (
            "{root}/{project}/{asset}/{subset}/v{version}/{subset}<.{frame}>{ext}",
            Some(46),
            P::Adjacent { second: key("ext") },
        ),
        ("{root}/{project}/{subset}/v{version}/x.{ext}", None, P::Missing { key: "asset" }),
        ("{root}/{project}/{asset}/v{version}/{subset}.{ext}", Some(37), P::NotInDirectory { key: "subset" }),
        (
            "{root}/{project}/{asset}/{subset}/{subset}_v{version}",
            Some(35),
            P::NotInDirectory { key: "version" },
        ),
        ("{root}/{project}/{asset}/publish/{subset}.{ext}", None, P::Missing { key: "version" }),
        ("{root}/{project}/{asset}/<{subset}_>x/v{version}/x", Some(26), P::NotInDirectory { key: "subset" }),
        ("{root}/{project}/{asset}/{subset}/{ext}/v{version}/x", Some(35), P::RepresentationInDirectory),
        ("{root}/{project}/x{hierarchy}/{asset}/{subset}/v{version}/x", Some(18), P::Hierarchy),
        ("{root}/{project}/{hierarchy}/{asset}/{hierarchy}/{subset}/v{version}/x", Some(38), P::Hierarchy),
        ("{root}/{project}/{asset}/{subset}/v{version}/{hierarchy}/x", Some(46), P::Hierarchy),
        ("{root}/{project}/{root[work]}/{asset}/{subset}/v{version}/x", Some(18), P::NotInProject),
    ] {
        let error = Template::parse(text).expect_err(text);
        assert_eq!((error.position, error.problem), (position, problem), "{text}");
        assert_eq!(error.template, text);
    }
    let long = format!("{{root}}/{{project}}/{}{{asset}}/{{subset}}/v{{version}}/x", "x/".repeat(64));
    assert_eq!(Template::parse(&long).unwrap_err().problem, P::TooLong);
}

#[test]
fn refusals_say_the_template_the_place_and_the_way_out() {
    let refused = |text: &str| {
        let error = Template::parse(text).unwrap_err();
        format!("{error}: {}", error.problem)
    };
    assert_eq!(
        refused("{root}/{project}/{asset}/{subset}/{subset}_v{version:0>3}.{ext}"),
        "template \"{root}/{project}/{asset}/{subset}/{subset}_v{version:0>3}.{ext}\" cannot be used (see character \
         35): {version} must stand in a folder, and not below the last folder that holds {version}: that folder is \
         the version directory, which appears at once and must say asset, subset and version"
    );
    assert_eq!(
        refused("{root}/{project}/{shot}/{subset}/v{version}/x"),
        "template \"{root}/{project}/{shot}/{subset}/v{version}/x\" cannot be used (see character 18): the key {shot} \
         is not known; known are root, project, silo, hierarchy, asset, subset, family, version, representation, ext, \
         task, app, user, frame, udim, output"
    );
    assert!(refused("{root}/{project}/{asset}{subset}/v{version}/x").ends_with(
        "{subset} directly follows another key, so that the two names cannot be told apart; put text between"
    ));
    assert!(
        refused("{root}/{project").ends_with("a brace has no partner; write {{ or }} for a brace in a name")
    );
}

#[test]
fn braces_formats_and_named_parts_are_understood() {
    let odd = template(
        "{root[render]}/{project}/{{x}}/{asset[name]}/{task[short]}/{subset}/{version}/{subset}.{frame:04}.{ext}",
    );
    let found = odd.invert(&path("{x}/robot/mdl/model/7/model.0042.abc")).unwrap();
    assert_eq!(found.fields.slot, VersionSlot::Number(7));
    assert_eq!(found.fields.others.get("task[short]").unwrap(), "mdl");
    assert_eq!(found.file_keys, BTreeMap::from([("frame".into(), "42".into())]));
    assert_eq!(odd.invert_dir(&path("{x}/robot/mdl/model/07")), None);
    assert_eq!(odd.to_string().parse::<Template>().unwrap(), odd);
}

#[test]
fn both_representation_and_extension_may_stand_in_a_template() {
    let both = template(
        "{root}/{project}/{asset}/{subset}/v{version:0>3}/{representation}/{subset}<.{frame}>.{ext}",
    );
    assert_eq!(
        read(&both, "robot/look/v001/preview/look.1001.png").as_deref(),
        Some(" robot/look@v001 preview/look.1001.png -> preview Entry")
    );
    let none = template("{root}/{project}/{asset}/{subset}/v{version:0>3}/{subset}.usd");
    assert_eq!(
        read(&none, "robot/look/v001/look.usd").as_deref(),
        Some(" robot/look@v001 look.usd -> usd Entry")
    );
}

#[test]
fn a_set_tries_its_templates_in_order_and_needs_one() {
    assert_eq!(TemplateSet::new(Vec::new()), Err(NoTemplate));
    let set = TemplateSet::new(vec![template(DEFAULT_PUBLISH), template(OPENPYPE)]).unwrap();
    assert_eq!(set.iter().count(), 2);
    let avalon = set.invert(&path("assets/robot/publish/model/v001/model.abc")).unwrap();
    assert_eq!(avalon.fields.silo.unwrap().as_str(), "assets");
    let openpype = set.invert_dir(&path("assets/robot/publish/model/main/v001")).unwrap();
    assert_eq!(openpype.fields.hierarchy.unwrap().as_str(), "assets");
    assert!(set.could_lead_to_version(&path("a/b/c/d")));
    assert!(!set.could_lead_to_version(&path("a/b/work/d")));
}

#[test]
fn a_name_made_to_be_split_in_very_many_ways_is_given_up() {
    let hostile = template(
        "{root}/{project}/{family}_{task}_{app}_{user}_{output}_{asset}_{subset}/{subset}.{asset}/v{version:0>3}/x.{ext}",
    );
    let many = "_".repeat(255);
    assert_eq!(hostile.invert_dir(&path(&format!("{many}/x.y/v001"))), None);
    let many = "a_".repeat(120);
    assert_eq!(hostile.invert_dir(&path(&format!("{many}/x.y/v001"))), None);
    let optional = "<_{output}>".repeat(60);
    let optional =
        template(&format!("{{root}}/{{project}}/{{asset}}/{{subset}}/v{{version}}/x{optional}.{{ext}}"));
    let given_up = optional.invert(&path(&format!("a/b/v1/x{}.c", "_a".repeat(120)))).unwrap();
    assert_eq!((given_up.role, given_up.representation.as_str()), (FileRole::Resource, "c"));
    let found = optional.invert(&path("a/b/v1/x_a_a_a.c")).unwrap();
    assert_eq!(found.role, FileRole::Entry);
}

fn fields_of_openpype() -> Fields {
    Fields {
        project: "movie".parse().unwrap(),
        silo: None,
        hierarchy: Some(path("Shots/sq1")),
        asset: "sh1".parse().unwrap(),
        subset: "beauty".parse().unwrap(),
        slot: VersionSlot::Number(7),
        representation: Some("exr".parse().unwrap()),
        others: [("family", "render"), ("project[code]", "prj"), ("frame", "1001")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    }
}

prop_compose! {
    // No name begins like one that Windows reserves (con, nul) or that no hierarchy holds (work, publish).
    fn any_fields()(
        folders in prop::collection::vec("[d-kq-v][A-Za-z0-9_.]{0,6}[a-z]", 0..4),
        silo in "[d-k]{1,8}",
        asset in "[D-Kd-k0-9][A-Za-z0-9_.-]{0,8}[a-z0-9]",
        subset in "[D-Kd-k0-9][A-Za-z0-9_.-]{0,8}[a-z0-9]",
        slot in prop_oneof![
            9 => (0..=VersionSlot::MAX_NUMBER).prop_map(VersionSlot::Number),
            1 => Just(VersionSlot::Hero),
        ],
        representation in "[a-z][a-z0-9]{0,6}",
        family in "[d-k]{1,8}",
        code in "[a-z_]{1,5}[a-z]",
        output in prop::option::of("[a-zA-Z]{1,6}"),
        frame in prop::option::of("[0-9]{1,5}"),
        udim in prop::option::of("1[0-9]{3}"),
    ) -> Fields {
        let mut fields = Fields {
            silo: Some(silo.parse().unwrap()),
            hierarchy: (!folders.is_empty()).then(|| path(&folders.join("/"))),
            asset: asset.parse().unwrap(),
            subset: subset.parse().unwrap(),
            slot,
            representation: Some(representation.parse().unwrap()),
            ..fields_of_openpype()
        };
        fields.others = BTreeMap::from([("family".into(), family), ("project[code]".into(), code)]);
        let optional = [("output", output), ("frame", frame), ("udim", udim)];
        let known = optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        fields.others.extend(known);
        fields
    }
}

proptest! {
    #[test]
    fn rendered_then_inverted_is_the_same_in_openpype(fields in any_fields()) {
        let openpype = template(OPENPYPE);
        let path = openpype.render(&fields).unwrap();
        let read = openpype.invert(&path).unwrap();
        let mut others = read.fields.others.clone();
        others.extend(read.file_keys);
        prop_assert_eq!(read.role, FileRole::Entry);
        let again = Fields { silo: fields.silo.clone(), representation: Some(read.representation), others, ..read.fields.to_fields(fields.project.clone()) };
        prop_assert_eq!(again, fields);
    }

    #[test]
    fn rendered_then_inverted_is_the_same_in_avalon(fields in any_fields()) {
        let avalon = template(DEFAULT_PUBLISH);
        let path = avalon.render(&fields).unwrap();
        let read = avalon.invert(&path).unwrap();
        prop_assert_eq!(&read.fields.silo, &fields.silo);
        prop_assert_eq!(&read.fields.asset, &fields.asset);
        prop_assert_eq!(&read.fields.subset, &fields.subset);
        prop_assert_eq!(read.fields.slot, fields.slot);
        prop_assert_eq!(Some(&read.representation), fields.representation.as_ref());
        prop_assert_eq!(read.role, FileRole::Entry);
        prop_assert_eq!(avalon.version_dir(&fields).unwrap(), read.dir.clone());
        let mut above = Some(read.dir);
        while let Some(dir) = above {
            prop_assert!(avalon.could_lead_to_version(&dir));
            above = dir.parent();
        }
    }

    #[test]
    fn any_path_is_read_as_a_version_that_renders_to_its_directory(
        text in "[ab]{1,2}(/[ab_.]{0,4}){0,3}/publish(/[ab._]{1,3}){1,2}/(v[0-9]{1,5}|hero)(/[ab]{1,2}[._v]{0,2}[ab01]{0,3}){1,2}"
    ) {
        let Ok(path) = text.parse::<RelPath>() else { return Ok(()) };
        for template in [template(DEFAULT_PUBLISH), template(OPENPYPE)] {
            if let Some(read) = template.invert(&path) {
                let fields = read.fields.to_fields("movie".parse().unwrap());
                prop_assert_eq!(template.version_dir(&fields).unwrap(), read.dir);
            }
        }
    }

    #[test]
    fn any_text_is_a_template_or_refused_without_panic(text in "(\\{root\\}/\\{project\\}/)?[{}<>/v:0\\[\\]a-e]{0,20}(\\{(asset|subset|version|hierarchy|ext)\\}/?){0,6}") {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(template.to_string(), text);
        }
    }
}
