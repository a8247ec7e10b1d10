# frozen_string_literal: true

Gem::Specification.new do |s|
  s.name = 'tokenkeep_zohocrm'
  s.version = '0.1.0'
  s.summary = 'The TokenStore of the Zoho CRM Ruby SDK on a tokenkeep agent'
  s.authors = ['The tokenkeep authors']
  s.license = 'Apache-2.0'
  s.homepage = 'https://github.com/tokenkeep/tokenkeep'
  s.files = ['lib/tokenkeep_zohocrm.rb', 'README.md']
  s.required_ruby_version = '>= 3.0'
  s.add_runtime_dependency 'ZOHOCRMSDK8_0', '>= 1.0'
end
