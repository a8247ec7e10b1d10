ThisBuild / organization := "io.github.tokenkeep"
ThisBuild / version := "0.1.0"
ThisBuild / scalaVersion := "3.3.7" // that of the SDK

lazy val root = (project in file("."))
  .settings(
    name := "tokenkeep-zohocrm-scala",
    description := "The TokenStore of the Zoho CRM Scala SDK on a tokenkeep agent",
    homepage := Some(url("https://github.com/tokenkeep/tokenkeep")),
    licenses := Seq("Apache-2.0" -> url("https://www.apache.org/licenses/LICENSE-2.0.txt")),
    libraryDependencies += "com.zoho.crm" % "zohocrmsdk-8-0" % "3.0.0" % Provided,
    Test / sources := Nil, // they bring their own types of the SDK
    publishMavenStyle := true
  )
