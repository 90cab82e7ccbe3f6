//Maya ASCII 2024 scene
//Name: layout.ma
//Codeset: UTF-8
file -rdi 1 -ns "robot" -rfn "robotRN" -op "v=0;" -typ "mayaAscii" "P:/projects/lantern/assets/robot/publish/modelDefault/v002/modelDefault.ma";
file -rdi 1 -ns "tree" -rfn "treeRN" -typ "mayaAscii" "$AVALON_PROJECTS/lantern/assets/tree/publish/rigDefault/v001/rigDefault.ma{1}";
file -r -ns "robot" -dr 1 -rfn "robotRN" -op "v=0;" -typ "mayaAscii" "P:/projects/lantern/assets/robot/publish/modelDefault/v002/modelDefault.ma";
file -r -ns "cam" -dr 1 -rfn "camRN"
		 -typ "mayaAscii" "../../../camera/publish/cameraMain/v002/cameraMain.ma";
requires maya "2024";
requires -nodeType "aiOptions" "mtoa" "5.3.0";
currentUnit -l centimeter -a degree -t film;
fileInfo "application" "maya";
fileInfo "osv" "Linux // not a comment; not the end";
createNode file -n "diffuse";
	rename -uid "A9C3-11";
	setAttr ".ftn" -type "string" "{root}/lantern/assets/robot/publish/textureDefault/v003/robot_diffuse.<UDIM>.exr";
	setAttr ".cs" -type "string" "ACEScg";
createNode imagePlane -n "plate";
	setAttr -k on ".imn" -type "string" "sourceimages/plate \"A\".1001.jpg";
createNode AlembicNode -n "anim";
	setAttr ".abc_File" -type "string" "P:\\projects\\lantern\\film\\sh010\\publish\\animRobot\\v003\\animRobot.abc";
	setAttr ".nts" -type "string" "/a/note/about/a/path.abc";
createNode mesh -n "plane";
	setAttr -s 4 ".vt[0:3]"  -0.5 0 0.5 0.5 0 0.5 -0.5 0 -0.5 0.5 0 -0.5;
	setAttr ".ftn" 3;
select -ne :time1;
	setAttr ".o" 1001;
// End of layout.ma
